//! `rollout get`: one line a Rollout.

use std::collections::BTreeMap;

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};

use super::{
    output::{self, Io, Whole},
    resources::{self, Usage},
    table::{Table, cell},
    view::View,
};
use crate::{api::v1beta1::Rollout, cli::duration};

/// Arguments of `rollout get`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Args {
    /// Nothing for all, rollout/NAME, or rollout NAME; several at once
    #[arg(value_name = "RESOURCE")]
    pub resources: Vec<String>,
    /// List all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels, such as team=web,tier!=db
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// How objects are printed [default: a table]
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Go on and print each change
    #[arg(short, long)]
    pub watch: bool,
    /// Leave the header of the table out
    #[arg(long)]
    pub no_headers: bool,
}

/// Forms of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Whole objects.
    Json,
    /// Whole objects.
    Yaml,
    /// A table with workload, revisions and ready canary pods.
    Wide,
    /// `rollout.rollouts.kruise.io/NAME`.
    Name,
}

impl Output {
    fn whole(self) -> Option<Whole> {
        match self {
            Output::Json => Some(Whole::Json),
            Output::Yaml => Some(Whole::Yaml),
            Output::Name => Some(Whole::Name),
            Output::Wide => None,
        }
    }
}

/// Which columns a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The namespace before the name.
    pub namespace: bool,
    /// Workload, revisions and ready canary pods after the rest.
    pub wide: bool,
    /// No header.
    pub bare: bool,
}

fn header(columns: Columns) -> Vec<String> {
    let mut names = Vec::new();
    if columns.namespace {
        names.push("NAMESPACE");
    }
    names.extend(["NAME", "STATUS", "STEP", "STATE", "WEIGHT", "MESSAGE", "AGE"]);
    if columns.wide {
        names.extend(["STYLE", "WORKLOAD", "STABLE", "CANARY", "READY"]);
    }
    names.into_iter().map(str::to_owned).collect()
}

fn row(rollout: &Rollout, columns: Columns, now: Timestamp) -> Vec<String> {
    let view = View::of(rollout);
    let mut cells = Vec::new();
    if columns.namespace {
        cells.push(view.namespace.to_owned());
    }
    let message = view.stalled().map_or(view.message, |c| c.message.as_str());
    let age = rollout.metadata.creation_timestamp.as_ref().map(|t| duration::human(now.duration_since(t.0)));
    cells.extend([
        view.name.to_owned(),
        cell(view.phase),
        cell(&view.step_of()),
        cell(view.release.map(|r| r.state).unwrap_or_default()),
        cell(&view.share()),
        cell(message),
        age.unwrap_or_else(|| "<unknown>".to_owned()),
    ]);
    if columns.wide {
        let release = view.release;
        cells.extend([
            view.style.to_owned(),
            view.workload.map_or_else(|| "-".to_owned(), |w| format!("{}/{}", w.kind, w.name)),
            cell(release.map(|r| r.stable_revision).unwrap_or_default()),
            cell(release.map(|r| r.canary_revision).unwrap_or_default()),
            release.map_or_else(|| "-".to_owned(), |r| format!("{}/{}", r.ready, r.replicas)),
        ]);
    }
    cells
}

/// The table of the default form.
pub fn render_table(rollouts: &[Rollout], now: Timestamp) -> String {
    render_columns(rollouts, now, Columns::default())
}

/// A table of chosen columns.
pub fn render_columns(rollouts: &[Rollout], now: Timestamp, columns: Columns) -> String {
    let rows = rows(rollouts, now, columns);
    let table = Table::fitting(&rows);
    rows.iter().map(|row| table.line(row)).collect()
}

fn rows(rollouts: &[Rollout], now: Timestamp, columns: Columns) -> Vec<Vec<String>> {
    let header = (!columns.bare).then(|| header(columns));
    header.into_iter().chain(rollouts.iter().map(|r| row(r, columns, now))).collect()
}

/// Prints what there is, and with `--watch` each change. False when an object that was named is not there.
///
/// # Errors
/// A wrong command line, an API server that refuses, or a closed output.
pub async fn run(args: &Args, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let names = resources::names(&args.resources)?;
    if !names.is_empty() && (args.all_namespaces || args.selector.is_some()) {
        return Err(Usage("names do not go with --all-namespaces or --selector".to_owned()).into());
    }
    if args.watch && names.len() > 1 {
        return Err(Usage("--watch goes with one Rollout or with all of them".to_owned()).into());
    }
    let api = if args.all_namespaces { resources::api_all(&client) } else { resources::api(&client, namespace) };
    if args.watch {
        if let Some(name) = names.first() {
            api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
        }
        return watch(args, &api, names.first(), io).await;
    }
    let (mut objects, mut all) = (Vec::new(), true);
    if names.is_empty() {
        let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
        objects = api.list(&params).await.map_err(|e| resources::list_failure(&e))?.items;
    }
    for name in &names {
        match api.get(name).await {
            Ok(object) => objects.push(object),
            Err(error) => {
                all = false;
                io.note(&format!("error: {:#}", resources::failure(&error, namespace, name)))?;
            }
        }
    }
    print(args, &names, objects, namespace, io)?;
    Ok(all)
}

fn print(
    args: &Args,
    names: &[String],
    objects: Vec<DynamicObject>,
    namespace: &str,
    io: &mut Io<'_>,
) -> anyhow::Result<()> {
    if let Some(form) = args.output.and_then(Output::whole) {
        let text = match objects.as_slice() {
            [] if !names.is_empty() => String::new(),
            [object] if names.len() == 1 => output::object(object, form)?,
            objects => output::list(objects, form)?,
        };
        return Ok(io.print(&text)?);
    }
    if objects.is_empty() {
        if names.is_empty() {
            let place = if args.all_namespaces { String::new() } else { format!(" in namespace {namespace:?}") };
            io.note(&format!("No rollouts found{place}."))?;
        }
        return Ok(());
    }
    let rollouts: Vec<Rollout> = objects.iter().map(resources::typed).collect::<Result<_, _>>()?;
    Ok(io.print(&render_columns(&rollouts, Timestamp::now(), columns(args)))?)
}

fn columns(args: &Args) -> Columns {
    Columns { namespace: args.all_namespaces, wide: args.output == Some(Output::Wide), bare: args.no_headers }
}

async fn watch(args: &Args, api: &Api<DynamicObject>, name: Option<&String>, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let mut config = watcher::Config::default();
    if let Some(name) = name {
        config = config.fields(&format!("metadata.name={name}"));
    }
    if let Some(selector) = &args.selector {
        config = config.labels(selector);
    }
    let events = watcher::watcher(api.clone(), config).default_backoff();
    pin_mut!(events);
    let mut printer = Printer::new(args.output.and_then(Output::whole), columns(args));
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => io.print(&printer.observe(event, Timestamp::now())?)?,
            Err(error) => {
                // A cluster that never answered is a mistake of the command line's, not an interruption.
                if let watcher::Error::InitialListFailed(error) = &error
                    && printer.initial.is_some()
                {
                    return Err(resources::list_failure(error));
                }
                if let Some(error) = super::fatal(&error) {
                    return Err(resources::list_failure(error));
                }
                if printer.is_quiet_since_trouble() {
                    io.note(&super::trouble(&error))?;
                }
            }
        }
    }
    Ok(true)
}

/// Turns watch events into text: the first list as a whole, then a line for each object whose line changed.
struct Printer {
    form: Option<Whole>,
    columns: Columns,
    initial: Option<Vec<DynamicObject>>,
    table: Table,
    printed: BTreeMap<String, Vec<String>>,
    troubled: bool,
}

impl Printer {
    fn new(form: Option<Whole>, columns: Columns) -> Self {
        let (table, printed) = (Table::default(), BTreeMap::new());
        Self { form, columns, initial: Some(Vec::new()), table, printed, troubled: false }
    }

    /// True once per interruption.
    fn is_quiet_since_trouble(&mut self) -> bool {
        !std::mem::replace(&mut self.troubled, true)
    }

    fn observe(&mut self, event: Event<DynamicObject>, now: Timestamp) -> anyhow::Result<String> {
        match event {
            Event::Init => Ok(String::new()),
            Event::InitApply(object) => {
                if let Some(initial) = &mut self.initial {
                    initial.push(object);
                    return Ok(String::new());
                }
                // A list after an interruption: only what changed meanwhile is news.
                self.one(&object, now)
            }
            Event::InitDone => {
                self.troubled = false;
                match self.initial.take() {
                    Some(initial) => self.first(&initial, now),
                    None => Ok(String::new()),
                }
            }
            Event::Apply(object) => {
                self.troubled = false;
                self.one(&object, now)
            }
            Event::Delete(object) => {
                self.printed.remove(&key(&object));
                match self.form {
                    Some(form) => output::object(&object, form),
                    None => {
                        let mut cells = row(&resources::typed(&object)?, self.columns, now);
                        if let Some(status) = cells.get_mut(usize::from(self.columns.namespace) + 1) {
                            "Deleted".clone_into(status);
                        }
                        Ok(self.table.line(&cells))
                    }
                }
            }
        }
    }

    fn first(&mut self, objects: &[DynamicObject], now: Timestamp) -> anyhow::Result<String> {
        let rollouts: Vec<Rollout> = objects.iter().map(resources::typed).collect::<Result<_, _>>()?;
        let rows = rows(&rollouts, now, self.columns);
        self.table = Table::fitting(&rows);
        let mut text = String::new();
        if self.form.is_none() && !self.columns.bare {
            text.push_str(&self.table.line(&header(self.columns)));
        }
        for object in objects {
            text.push_str(&self.one(object, now)?);
        }
        Ok(text)
    }

    fn one(&mut self, object: &DynamicObject, now: Timestamp) -> anyhow::Result<String> {
        let cells = match self.form {
            Some(_) => vec![object.resource_version().unwrap_or_default()],
            None => row(&resources::typed(object)?, self.columns, now),
        };
        // The age alone is no change.
        let age = usize::from(self.columns.namespace) + 6;
        let comparable: Vec<String> =
            cells.iter().enumerate().filter(|(i, _)| *i != age).map(|(_, c)| c.clone()).collect();
        if self.printed.get(&key(object)) == Some(&comparable) {
            return Ok(String::new());
        }
        self.printed.insert(key(object), comparable);
        match self.form {
            Some(form) => output::object(object, form).map(|text| document(form, text)),
            None => Ok(self.table.line(&cells)),
        }
    }
}

/// YAML documents of a stream are told apart by a line.
fn document(form: Whole, text: String) -> String {
    if form == Whole::Yaml { format!("---\n{text}") } else { text }
}

fn key(object: &DynamicObject) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests;
