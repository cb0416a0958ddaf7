-- Linkerd's own HTTPRoute, the older form of the Gateway API's. Requests are routed where meshed clients send them.
-- caps: weight,header,query,path,regex,rhm,method,cookie,ports,several,http; accept: A2
-- versions: v1beta3, v1beta2, v1beta1, v1alpha1
--
-- What it does is what is done to a HTTPRoute of the Gateway API, see there. A ServiceProfile of the same Service makes
-- Linkerd ignore routes. Retries and timeouts are annotations of the route, and stay.
--
-- Not expressible: one Service for both versions; a path that narrows a rule which replaces the prefix that it matched;
-- two conditions on one value of which one is a regular expression; more than 8 matches in a rule.
--
-- Errors: those of the Gateway API's HTTPRoute.

tidegate.gateway_api.apply(tidegate.gateway_api.combine_http, 8)
return obj.data
