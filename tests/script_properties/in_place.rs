//! Ingress classes that hold both versions in one Ingress.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;
use tidegate::{
    api::v1beta1::NetworkRef,
    lua::{Engine, Library, Script},
    traffic::{
        Original, Parts, Strategy as Step,
        ingress::{API_VERSION, KIND},
        output,
        routes::{Context, Network, plan_restore, plan_step},
        script_input,
    },
};

use crate::row::{ENGINE, OTHER, apply, names, patch_of, without_nulls};

pub struct Class {
    pub name: &'static str,
    /// Whether one Service is both versions.
    pub is_one: bool,
}

pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["metadata"]["annotations"].clone()).unwrap()
}

impl Class {
    fn script(&self) -> Script {
        Library::ingress(self.name).unwrap()
    }

    pub fn run(&self, engine: &Engine, object: &Value, step: &Step) -> Result<Parts, String> {
        let names = names(self.is_one);
        let input = script_input(&Original::from_object(object).unwrap(), &names, patch_of(&names).as_ref(), step);
        output(engine.run(&self.script(), &input).map_err(|e| e.message)?.value).map_err(|e| e.to_string())
    }

    /// Steps in any order, written as the controller writes them, each as from the original; and then the end: the Ingress
    /// is what it was.
    pub fn steps_follow_each_other_and_the_end_restores(
        &self,
        object: &Value,
        steps: &[Step],
    ) -> Result<(), TestCaseError> {
        let (names, mut live) = (names(self.is_one), object.clone());
        let patch = patch_of(&names);
        let context = Context { names: &names, patch: patch.as_ref(), engine: &ENGINE };
        let network = |live: &Value| Network {
            reference: NetworkRef {
                api_version: API_VERSION.to_owned(),
                kind: KIND.to_owned(),
                name: "web".to_owned(),
            },
            namespace: "shop".to_owned(),
            object: Ok(Arc::new(live.clone())),
            script: Ok(self.script()),
            working: None,
            acceptance: None,
        };
        let failed = |e: &dyn std::fmt::Display| TestCaseError::fail(e.to_string());
        for step in steps {
            let Ok(wanted) = self.run(&OTHER, object, step) else { continue };
            for write in plan_step(&[network(&live)], &context, step).map_err(|e| failed(&e))? {
                apply(&mut live, &write.change);
            }
            prop_assert_eq!(without_nulls(&live["spec"]), without_nulls(&wanted.spec));
            let mut found = annotations(&live);
            found.retain(|key, _| !key.contains("kruise.io/"));
            prop_assert_eq!(found, wanted.annotations);
        }
        for write in plan_restore(&[network(&live)], &ENGINE).map_err(|e| failed(&e))? {
            apply(&mut live, &write.change);
        }
        prop_assert_eq!(&live["spec"], &object["spec"]);
        for key in ["labels", "annotations"] {
            prop_assert_eq!(&live["metadata"][key], &object["metadata"][key]);
        }
        Ok(())
    }
}
