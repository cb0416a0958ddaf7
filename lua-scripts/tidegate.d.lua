---@meta
-- What a script is given, for editors that read LuaLS annotations. It is never run.

---@alias tidegate.Object table<string, any> An object of the cluster, as JSON: its tables may hold any field.

---@class tidegate.Input
---@field data tidegate.Data The object before the release. Change it and return it.
---@field canaryWeight number|string The canary's share in per cent; -1 for a step without one.
---@field stableWeight number|string 100 minus canaryWeight.
---@field stableService string The user's Service.
---@field canaryService string The canary's Service; the stable one's name when there is none of its own.
---@field serviceNamespace string? Namespace of both Services. An addition to OpenKruise's contract.
---@field matches tidegate.Match[]? Alternatives; they win over a weight.
---@field requestHeaderModifier tidegate.HeaderModifier?
---@field patchPodMetadata { labels: table<string, string>?, annotations: table<string, string>? }? What the canary's pods were patched with.
---@field annotations table<string, string>? For Ingress classes: the stable Ingress's, without those of other controllers.
---@field controller string? For Ingress classes: `spec.controller` of the IngressClass, where it is known. An addition.
---@field weight string? For Ingress classes: the canary's share; "-1" for a step without one.
obj = {}

---@class tidegate.Data
---@field spec tidegate.Object
---@field labels table<string, string>?
---@field annotations table<string, string>?
---@field apiVersion string? An addition, as are kind and metadata.
---@field kind string?
---@field metadata { name: string?, namespace: string? }?

---@class tidegate.Match
---@field path { type: "Exact"|"PathPrefix"|"RegularExpression"|nil, value: string? }?
---@field headers { type: "Exact"|"RegularExpression"|nil, name: string, value: string }[]?
---@field queryParams { type: "Exact"|"RegularExpression"|nil, name: string, value: string }[]?

---@class tidegate.HeaderModifier
---@field set { name: string, value: string }[]?
---@field add { name: string, value: string }[]?
---@field remove string[]?

---@class tidegate.Condition One of the three.
---@field exact string?
---@field prefix string?
---@field regex string?

---How a gateway's weighted backends are read, and what a canary is made of.
---@class tidegate.Backend
---@field is_stable fun(entry: table): boolean Whether an entry is the stable Service.
---@field is_canary fun(entry: table): boolean Whether an entry is the canary.
---@field canary fun(entry: table): table The canary's twin of a stable entry: a copy under the canary's name.
---@field belongs (fun(entry: table, canary: table): boolean)? Whether a canary is that stable entry's, by port; any is when left out.
---@field field string? Where the number is; "weight" when left out.
---@field default integer? What an absent number means; 0 when left out.
---@field lone boolean? A lone entry gets everything whatever its number, 0 too.
---@field zero "even"|nil With "even", entries of which all are 0 share evenly.
---@field refuses_zero string? The gateway's name when it refuses entries of which all are 0.
---@field most integer? The largest number that the gateway takes.
---@field keeps_number boolean? A lone canary gets the number 100 if its stable entry had one, or keeps the default: for API servers that write absent numbers.

---Functions that all scripts share. Read-only.
---@class tidegate
---@field VALUE_KINDS table<string, string> Types of a condition to keys of tidegate.Condition.
---@field PATH_KINDS table<string, string> The same for paths.
tidegate = {}

-- ---- the object ------------------------------------------------------------------------------------------------

---A deep copy.
---@generic T
---@param value T
---@return T
function tidegate.copy(value) end

---Whether a table is nil or has nothing in it.
---@param value table?
---@return boolean
function tidegate.is_empty(value) end

---Stops with an error that names the object's kind, namespace and name, and the script's line.
---@param message string
function tidegate.fail(message) end

---Stops: `<gateway> cannot express <field>; <remedy>`.
---@param gateway string
---@param field string
---@param remedy string?
function tidegate.refuse(gateway, field, remedy) end

---Stops when count exceeds most: `<gateway> takes at most <most> <what>; this step would need <count>`.
---@param count integer
---@param most integer
---@param gateway string
---@param what string
function tidegate.at_most(count, most, gateway, what) end

---Says something that the author of the Rollout should know although the step can be done.
---@param message string
function tidegate.warn(message) end

-- ---- the step --------------------------------------------------------------------------------------------------

---The canary's share, 0 to 100; nil when the step has none. Stops at anything else.
---@return integer?
function tidegate.weight() end

---The step's matches; nil when it has none. Stops at a match without a condition.
---@return tidegate.Match[]?
function tidegate.matches() end

---The step's header modifier; nil when it changes nothing.
---@return tidegate.HeaderModifier?
function tidegate.modifier() end

-- ---- Services --------------------------------------------------------------------------------------------------

---What follows the Service's name in a host that names it: "", ".ns", ".ns.svc.cluster.local"; nil for any other host.
---@param host any
---@param service string
---@return string?
function tidegate.host_suffix(host, service) end

---Whether a host names the Service, short, with namespace or in full.
---@param host any
---@param service string
---@return boolean
function tidegate.names_service(host, service) end

---Whether a reference `{ name, namespace?, kind?, group? }` names the Service. Another kind or group of its name does not.
---@param reference any
---@param service string
---@return boolean
function tidegate.is_service(reference, service) end

---How entries are read that name a Service, such as `{ name, namespace?, kind?, port?, weight? }`.
---@param more table<string, any> Further fields of the result, such as `default`.
---@param name_field string? "name" when left out. In another field only the name counts, not kind and namespace.
---@param port_field string? "port" when left out.
---@return tidegate.Backend
function tidegate.references(more, name_field, port_field) end

---Whether stable and canary Service are one.
---@return boolean
function tidegate.is_one_service() end

---Whether pods that have these labels can only be the canary's, as those of the canary are patched.
---@param labels table<string, string>?
---@return boolean
function tidegate.chooses_canary(labels) end

---The labels of the canary's pods, by the keys that choose the stable ones.
---@param labels table<string, string>? What chooses the stable pods.
---@return table<string, string>? labels nil when `labels` choose the canary's pods too.
function tidegate.canary_labels(labels) end

---Stops when stable and canary Service are one, for a gateway that tells versions apart by Service only.
---@param gateway string
function tidegate.need_canary_service(gateway) end

---Stops: `no <what> routes to Service "…"`.
---@param what string
function tidegate.no_route(what) end

---Stops: `every <what> that routes to Service "…" gives it weight 0: there is no share to split`.
---@param what string
function tidegate.drained(what) end

-- ---- weights ---------------------------------------------------------------------------------------------------

---Splits the share of the stable entries of one list, in place, for gateways with relative weights. Other entries keep
---their share, a canary that is there already is used, and the sum stays (100 for a lone entry) unless the numbers are
---too small for per cents: then they become larger ones in exactly the same ratio.
---@param entries table[]
---@param weight integer The canary's per cent.
---@param backend tidegate.Backend
---@param at string? Place of the list, for errors.
---@return boolean named Whether the list has the stable Service at all.
---@return table[]? canaries The canary entries; nil when the stable Service has no share to split.
function tidegate.split(entries, weight, backend, at) end

---The same for gateways whose numbers must be per cents that sum to 100.
---@param entries table[]
---@param weight integer
---@param backend tidegate.Backend
---@param at string?
---@return boolean named
---@return table[]? canaries
function tidegate.split_percent(entries, weight, backend, at) end

---The entries of a rule that sends everything to the canary: one for each stable entry that has a share. The list given
---stays as it is.
---@param entries table[]
---@param backend tidegate.Backend
---@return boolean named
---@return table[]? canaries
function tidegate.canaries(entries, backend) end

---@param a integer
---@param b integer
---@return integer
function tidegate.gcd(a, b) end

---Turns whole numbers, in place, into the smallest in their ratio, or multiples that sum to `sum` where that is exact.
---@param values integer[]
---@param sum integer
---@param most integer? The largest allowed; numbers above 0 stay above 0.
function tidegate.reduce(values, sum, most) end

---Scales whole numbers, in place, to a sum; rounding errors do not add up.
---@param values integer[]
---@param sum integer
function tidegate.rescale(values, sum) end

-- ---- headers and texts -----------------------------------------------------------------------------------------

---@param a string
---@param b string
---@return boolean
function tidegate.same_header(a, b) end

---The entry of a list of `{ name = … }` with this header name in any case, and its index.
---@param list table[]?
---@param name string
---@return table?, integer?
function tidegate.find_header(list, name) end

---The key of a map that is this header name in any case.
---@param map table<string, any>?
---@param name string
---@return string?
function tidegate.header_key(map, name) end

---Merges a modifier into `{ set = { [name] = value }, add = { [name] = value }, remove = { name } }`; the step wins.
---@param request table
---@param modifier tidegate.HeaderModifier
function tidegate.modify_header_maps(request, modifier) end

---Merges a modifier into `{ set = { { name, value } }, add = { { name, value } }, remove = { name } }`, one action a
---header; the step wins. Stops when the step itself names a header twice.
---@param filter table
---@param modifier tidegate.HeaderModifier
function tidegate.modify_header_lists(filter, modifier) end

---A text as a regular expression that matches it and nothing else (RE2, Go's regexp, PCRE).
---@param text string
---@return string
function tidegate.escape_regex(text) end

---A regular expression that matches the whole value, for gateways that look for it anywhere.
---@param regex string
---@return string
function tidegate.whole(regex) end

---A function that makes names: `<base>-canary`, `<base>-canary-2`, … that are not in `used`, at most `longest` long.
---@param used table<string, boolean>
---@param longest integer?
---@return fun(base: string): string
function tidegate.names(used, longest) end

---The same for names beside those of rules, which have them in `name`.
---@param rules { name: string? }[]?
---@param longest integer?
---@return fun(base: string): string
function tidegate.names_beside(rules, longest) end

-- ---- matches ---------------------------------------------------------------------------------------------------

---A header's or parameter's condition in the words of `tidegate.Condition`.
---@param entry { type: string?, value: string }
---@param at string Its place, for errors.
---@return tidegate.Condition
function tidegate.condition(entry, at) end

---The same for a path.
---@param path { type: string?, value: string? }
---@param at string
---@return tidegate.Condition
function tidegate.path_condition(path, at) end

---The condition that holds when both do, or nil when both never do. Stops when that cannot be said, because one of
---them is a regular expression.
---@param rule tidegate.Condition? nil for none.
---@param step tidegate.Condition
---@param what string What they are about, for errors.
---@param at string Place of the step's, for errors.
---@param options { is_path: boolean?, segments: boolean?, any_case: boolean? }? is_path: the prefix "/" is every path; segments: prefixes end where a path segment does; any_case: case does not count.
---@return tidegate.Condition?
function tidegate.narrow(rule, step, what, at, options) end

---Calls `add` for each header and query parameter of a step's match.
---@param match tidegate.Match
---@param at string Its place, for errors.
---@param add fun(field: "headers"|"queryParams", entry: { name: string, type: string?, value: string }, condition: tidegate.Condition, at: string): boolean? False when the condition can never hold: none is added any more.
---@return boolean holds
function tidegate.add_conditions(match, at, add) end

---@class tidegate.Crossing
---@field of fun(bases: table[]?, rule: any): table[][] For each of the step's matches the results with each of a rule's matches (a rule without any counts as one that is {}). `rule` is handed on to `combine`.
---@field check fun() Stops when one of the step's matches held with no rule.

---Combines every step match with every match of every rule.
---@param matches tidegate.Match[]
---@param combine fun(base: table, match: tidegate.Match, at: string, rule: any): table? What holds when both do; nil when both never do.
---@return tidegate.Crossing
function tidegate.crossing(matches, combine) end

---@class tidegate.PathSearch How the rules of an object and their paths are read.
---@field rules table[]
---@field bases fun(rule: table): table[]? A rule's matches, of which one must hold.
---@field path fun(match: table): tidegate.Condition? nil for a match whose path cannot be told.
---@field asks_more fun(match: table, rule: table): boolean Whether it has conditions beside the path.
---@field is_ours fun(rule: table): boolean Whether the rule routes to the stable Service.
---@field gateway string
---@field options table? As for `tidegate.narrow`.
---@field rewrites (fun(rule: table): any)? For `tidegate.path_within`: whether the rule replaces the prefix that matched.
---@field rewrite string? The field that does, for errors.

---Whether a path that is narrower than its rule's was another rule's, for gateways where the longer path wins. Stops when
---a rule of another Service takes some of its requests only.
---@param path tidegate.Condition
---@param own tidegate.Condition? The rule's.
---@param rule table
---@param at string Place of the step's, for errors.
---@param how tidegate.PathSearch
---@return boolean
function tidegate.path_of_another(path, own, rule, at, how) end

---A rule's path together with the step's: nil when both never hold, or where it was another rule's; `own` itself when the
---step's says no more. Stops where the prefix that matched is replaced, or another Service's rule takes some of the requests.
---@param own tidegate.Condition? The rule's.
---@param step tidegate.Condition
---@param rule table
---@param at string Place of the step's match, for errors.
---@param how tidegate.PathSearch
---@return tidegate.Condition?
function tidegate.path_within(own, step, rule, at, how) end

-- ---- rules -----------------------------------------------------------------------------------------------------

---@class tidegate.StepOptions
---@field weight fun(weight: integer) Splits shares.
---@field matches (fun(matches: tidegate.Match[]))? Sends what matches to the canary; left out where `refuses` has `matches`.
---@field refuses { [string]: string }? A remedy, or "", for each of these that the gateway cannot express: `matches`, `requestHeaderModifier`, `requestHeaderModifier beside a weight`, `requestHeaderModifier.add`, `requestHeaderModifier.remove`.
---@field subset boolean? One Service for both versions will do.

---Does what the step asks, with `how.matches` or else with `how.weight`; nothing where it asks for neither.
---@param gateway string For errors: the kind.
---@param how tidegate.StepOptions
function tidegate.step(gateway, how) end

---Splits each list; stops when none names the stable Service, or none gives it a share.
---@param lists { entries: table[], at: string }[] May hold more, for `done`.
---@param weight integer
---@param backend tidegate.Backend
---@param what string What a list belongs to, for errors: "route".
---@param done (fun(list: table, canaries: table[]))? Is told of each list that gave something to the canary.
---@param split function? `tidegate.split_percent` in place of `tidegate.split`.
function tidegate.split_lists(lists, weight, backend, what, done, split) end

---@class tidegate.ForkOptions
---@field entries fun(rule: table): table[]? A rule's weighted backends.
---@field bases fun(rule: table): table[]? Its matches, of which one must hold.
---@field combine fun(base: table, match: tidegate.Match, at: string, rule: table): table? As for `tidegate.crossing`.
---@field add fun(rule: table, both: table[], canaries: table[], into: table[]) Appends canary rules to `into`: for each of `both` what holds together, `canaries` are their backends.
---@field backend tidegate.Backend
---@field what string What a rule is called, for errors.

---@class tidegate.Forking
---@field of fun(rules: table[]?): table[] A new list: the rules given, and canary rules right before ours.
---@field check fun() Stops when no rule was ours, or a match of the step held with none.

---Canary rules for those that route to the stable Service.
---@param matches tidegate.Match[]
---@param how tidegate.ForkOptions
---@return tidegate.Forking
function tidegate.forking(matches, how) end

---The same for one list of rules, with all that `check` stops at.
---@param rules table[]?
---@param matches tidegate.Match[]
---@param how tidegate.ForkOptions
---@return table[] rules A new list.
function tidegate.fork(rules, matches, how) end

---Whether one of the entries is the stable Service.
---@param entries table[]?
---@param backend tidegate.Backend
---@return boolean
function tidegate.has_stable(entries, backend) end

---A list of texts without repetitions.
---@param list string[]
---@return string[]
function tidegate.unique(list) end

-- ---- canary Ingresses ------------------------------------------------------------------------------------------

---The annotations that the canary Ingress starts from, without canary annotations of these prefixes.
---@param prefixes string[]
---@return table<string, string>
function tidegate.canary_annotations(prefixes) end

---A share in per cent as the text that a gateway reads which counts to `total`. Rounding takes no version its last request.
---@param weight integer
---@param total integer
---@return string
function tidegate.share(weight, total) end

---@class tidegate.SingleCondition
---@field at string Its place, for errors.
---@field what "header"|"query"|"cookie" A header named canary-by-cookie stands for a cookie, whose name is the value.
---@field name string
---@field value string
---@field is_regex boolean

---The step's matches for a gateway that knows one condition in each; others are refused.
---@param gateway string
---@param knows_query boolean? Without it query parameters are refused.
---@return tidegate.SingleCondition[]
function tidegate.single_conditions(gateway, knows_query) end

---The same for a gateway that knows one condition at all.
---@param gateway string
---@param knows_query boolean?
---@return tidegate.SingleCondition? nil when the step has no matches.
function tidegate.single_condition(gateway, knows_query) end

---Lines that an annotation has already, and these.
---@param written string?
---@param lines string[]
---@return string?
function tidegate.more_lines(written, lines) end

---Writes the step's changes of request headers as annotations `<prefix>update`, `<prefix>add` and `<prefix>remove`.
---@param gateway string
---@param annotations table<string, string>
---@param prefix string
function tidegate.header_control(gateway, annotations, prefix) end

-- ---- Gateway API -----------------------------------------------------------------------------------------------

---What the routes of the Gateway API have in common.
---@class tidegate.gateway_api
tidegate.gateway_api = {}

---Makes obj.data.spec do what the step asks: splits backendRefs, or puts canary rules before their bases.
---@param combine (fun(base: table, match: tidegate.Match, at: string, rule: table): table?)? As for `tidegate.crossing`; none for routes that do not look into requests.
---@param most_matches integer? In a rule; 64 when left out.
function tidegate.gateway_api.apply(combine, most_matches) end

---A match of an HTTPRoute's rule together with the step's, for `apply`.
---@param base table
---@param match tidegate.Match
---@param at string
---@param rule table
---@return table?
function tidegate.gateway_api.combine_http(base, match, at, rule) end

---Merges the step's header modifier into the filters of a rule or backendRef.
---@param holder table
---@param modifier tidegate.HeaderModifier?
function tidegate.gateway_api.modify(holder, modifier) end

---Adds the step's header or query conditions to a match of a rule, in place.
---@param result table The match.
---@param field "headers"|"queryParams"
---@param wanted { type: string?, name: string, value: string }[]?
---@param at string Place of the step's match, for errors.
---@param any_case boolean Whether names in another case are the same.
---@return boolean holds False when they can never hold together.
function tidegate.gateway_api.add_conditions(result, field, wanted, at, any_case) end

---Whether requests that a step's match would take from a rule went to another rule. Stops when some of them go to another
---Service.
---@param rule table
---@param at string Place of the step's condition, for errors.
---@param takes fun(match: table): boolean? Of a match of another rule: true when it takes all of them, false for some, nil for none.
---@return boolean
function tidegate.gateway_api.belongs_to_another(rule, at, takes) end

---Whether a filter of a rule or backendRef replaces the prefix that matched.
---@param holder table
---@return boolean
function tidegate.gateway_api.replaces_prefix(holder) end

---How rules with matches of the Gateway API's shape are read, for `tidegate.path_within`.
---@param rules table[]
---@param has_stable fun(rule: table): boolean
---@param rewrites fun(rule: table): any
---@return tidegate.PathSearch
function tidegate.gateway_api.paths(rules, has_stable, rewrites) end

---A path in the words of the Gateway API.
---@param condition tidegate.Condition
---@return { type: string, value: string }
function tidegate.gateway_api.path(condition) end

-- ---- Gloo ------------------------------------------------------------------------------------------------------

---What RouteTables and UpstreamGroups have in common.
---@class tidegate.gloo
tidegate.gloo = {}

---How weighted destinations are read.
---@return tidegate.Backend
function tidegate.gloo.backend() end

---Merges the step's header modifier into the options of a route or weighted destination.
---@param holder table
---@param modifier tidegate.HeaderModifier?
function tidegate.gloo.modify(holder, modifier) end

-- ---- OpenKruise's own ------------------------------------------------------------------------------------------

json = {}

---@param value any
---@return string?, string? error
function json.encode(value) end

---@param text string
---@return any, string? error
function json.decode(text) end

---Says that an empty table is a list.
---@param t table
---@return table
function json.array(t) end

---Says that an empty table is an object.
---@param t table
---@return table
function json.object(t) end

-- ---- accepted.lua ----------------------------------------------------------------------------------------------

---What an accepted.lua sees: the object as it is.
---@class tidegate.Reported
---@field apiVersion string
---@field kind string
---@field metadata { name: string, namespace: string?, generation: integer?, labels: table<string, string>?, annotations: table<string, string>? }
---@field spec tidegate.Object
---@field status tidegate.Object? Nothing when no controller has written one.

---What an accepted.lua returns.
---@class tidegate.Answer
---@field verdict "accepted"|"waiting"|"refused"|"unreported"
---@field reason string? Why; only an accepted one may have none.
---@field undated boolean? The status does not say which generation it is about.

---@class tidegate.status
tidegate.status = {}

---@param undated boolean?
---@return tidegate.Answer
function tidegate.status.accepted(undated) end

---@param reason string
---@return tidegate.Answer
function tidegate.status.waiting(reason) end

---@param reason string
---@param undated boolean?
---@return tidegate.Answer
function tidegate.status.refused(reason, undated) end

---No controller has said anything; "no controller has reported on it" when no reason is given.
---@param reason string?
---@return tidegate.Answer
function tidegate.status.unreported(reason) end

---One text of what is said in several fields; those that are nil or empty are left out.
---@param what string
---@param reason string?
---@param message string?
---@return string
function tidegate.status.words(what, reason, message) end

---Judges the conditions of these types that are there: all must be True, for the object's generation.
---@param conditions table[]?
---@param kinds string[]
---@return tidegate.Answer
function tidegate.status.conditions(conditions, kinds) end

---The worst of several answers, for parts that must all be taken; nil of none.
---@param answers tidegate.Answer[]
---@return tidegate.Answer?
function tidegate.status.worst(answers) end

---The best of several answers, for controllers of which one is enough; nil of none.
---@param answers tidegate.Answer[]
---@return tidegate.Answer?
function tidegate.status.best(answers) end

---Whether every parentRef of a route of the Gateway API has taken it.
---@return tidegate.Answer
function tidegate.gateway_api.accepted() end

---Whether every reporter of Gloo has taken the object.
---@return tidegate.Answer
function tidegate.gloo.accepted() end
