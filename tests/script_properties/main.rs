//! What must hold for every built-in script of a networkRef, whatever the object: shares add up, what is not ours stays
//! as it is, nothing depends on what ran before, and the end restores.
//!
//! A script has one row in [`rows!`], made of a generator of valid objects and of how their backends are read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod alb;
mod gateway_api;
mod haproxy_pods;
mod in_place;
mod ingress;
mod istio;
mod mesh;
mod references;
mod row;
mod upstreams;

use row::{
    Row, budget_holds, finishing_restores, match_steps_add_rules_and_change_none, nothing_depends_on_what_ran_before,
    weight_steps_split_what_is_ours,
};
use tidegate::lua::Library;

/// Makes the tests of each row.
macro_rules! rows {
    ($($name:ident => $row:expr,)*) => {
        const ROWS: &[&Row] = &[$(&$row),*];
        $(mod $name {
            #[test]
            fn weight_steps_split_what_is_ours() { super::weight_steps_split_what_is_ours(&$row) }
            #[test]
            fn match_steps_add_rules_and_change_none() { super::match_steps_add_rules_and_change_none(&$row) }
            #[test]
            fn nothing_depends_on_what_ran_before() { super::nothing_depends_on_what_ran_before(&$row) }
            #[test]
            fn finishing_restores() { super::finishing_restores(&$row) }
            #[test]
            fn budget_holds() { super::budget_holds(&$row) }
        })*
    };
}

rows! {
    http_route => crate::gateway_api::HTTP_ROUTE,
    grpc_route => crate::gateway_api::GRPC_ROUTE,
    tcp_route => crate::gateway_api::TCP_ROUTE,
    tls_route => crate::gateway_api::TLS_ROUTE,
    udp_route => crate::gateway_api::UDP_ROUTE,
    virtual_service => crate::istio::VIRTUAL_SERVICE,
    traefik_service => crate::references::TRAEFIK_SERVICE,
    ingress_route => crate::references::INGRESS_ROUTE,
    apisix_route => crate::references::APISIX_ROUTE,
    http_proxy => crate::references::HTTP_PROXY,
    mesh_http_route => crate::mesh::MESH_HTTP_ROUTE,
    linkerd_http_route => crate::mesh::LINKERD_HTTP_ROUTE,
    traffic_split => crate::mesh::TRAFFIC_SPLIT,
    service_splitter => crate::mesh::SERVICE_SPLITTER,
    virtual_server => crate::upstreams::VIRTUAL_SERVER,
    route_group => crate::upstreams::ROUTE_GROUP,
    route_table => crate::upstreams::ROUTE_TABLE,
    upstream_group => crate::upstreams::UPSTREAM_GROUP,
}

/// Defines what others route to and splits nothing itself; its cases are all that there is to say.
const DEFINITIONS: [&str; 1] = ["networking.istio.io/DestinationRule"];

#[test]
fn every_script_of_a_network_ref_has_a_row() {
    for (group, kind) in Library::kinds() {
        let target = format!("{group}/{kind}");
        let has_row = ROWS.iter().any(|row| row.group == group && row.kind == kind);
        assert!(
            has_row || DEFINITIONS.contains(&target.as_str()),
            "{target}: add a generator and a row to tests/script_properties"
        );
    }
}
