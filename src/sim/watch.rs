//! A watch: the body of a response that never quite ends.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::core::{Caller, Core, State};
use super::json;
use super::registry::{Kind, api_version};
use super::selector::{Fields, Labels};
use super::server::{Bytes, status_value};
use super::status;
use super::store::Entry;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a list or watch selects and how objects are shown.
#[derive(Clone)]
pub(crate) struct Selection {
    pub kind: Arc<Kind>,
    pub namespace: Option<String>,
    pub labels: Labels,
    pub fields: Fields,
    /// Only metadata is asked for.
    pub metadata_only: bool,
}

impl Selection {
    pub fn selects(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|n| json::namespace(object) == n)
            && self.labels.selects(object)
            && self.fields.selects(object)
    }

    /// True if labels or fields are asked for.
    pub fn is_selective(&self) -> bool {
        self.labels != Labels::default() || self.fields != Fields::default()
    }

    /// The bytes of an object as this client wants it.
    pub fn show(&self, core: &Core, caller: &Caller, object: &Arc<Value>) -> Arc<Value> {
        if self.metadata_only {
            return Arc::new(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": object.get("metadata")}));
        }
        core.view_version(&self.kind, caller, object)
    }
}

pub(crate) struct Watch {
    pub core: Arc<Core>,
    pub caller: Caller,
    pub epoch: u64,
    pub id: u64,
    pub selection: Selection,
    /// Everything up to this version was sent.
    pub cursor: u64,
    pub ready: VecDeque<Bytes>,
    pub bookmarks: bool,
    pub bookmarked: u64,
    pub deadline: Instant,
    pub delay: Option<RangeInclusive<Duration>>,
    /// When the event after the cursor is due.
    pub due: Option<(u64, Instant)>,
    /// The watch breaks after so many more events.
    pub events_left: Option<u32>,
    /// Every event is sent twice.
    pub repeats: bool,
    pub sleep: Option<Pin<Box<Sleep>>>,
    pub done: bool,
}

enum Next {
    Event(Bytes),
    Last(Bytes),
    End,
    Until(Instant),
    Never,
}

pub(crate) fn line(kind: &str, object: &Value) -> Bytes {
    // The type first, as a real server writes it: a client need not keep the object until it knows what it is.
    let mut text = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
    // A value is always JSON, and a vector takes all of it.
    let _ = serde_json::to_writer(&mut text, object);
    text.extend(b"}\n");
    Bytes::from(text)
}

impl Watch {
    fn event(&self, entry: &Entry) -> Option<Bytes> {
        let was = entry.before.as_deref().is_some_and(|o| self.selection.selects(o));
        let is = entry.after.as_deref().is_some_and(|o| self.selection.selects(o));
        let (kind, object) = match (was, is, &entry.after, &entry.tombstone, &entry.before) {
            (false, true, Some(after), _, _) => ("ADDED", after.clone()),
            (true, true, Some(after), _, _) => ("MODIFIED", after.clone()),
            (true, false, None, Some(last), _) => ("DELETED", last.clone()),
            (true, false, Some(_), _, Some(before)) => {
                let mut last = Value::clone(before);
                json::set(&mut last, &["metadata", "resourceVersion"], entry.version.to_string());
                ("DELETED", Arc::new(last))
            }
            _ => return None,
        };
        Some(line(kind, &self.selection.show(&self.core, &self.caller, &object)))
    }

    fn bookmark(&self, version: u64) -> Bytes {
        let (group, kind) = (&self.selection.kind.group, &self.selection.kind.kind);
        line(
            "BOOKMARK",
            &json!({"kind": kind, "apiVersion": api_version(group, &self.caller.version),
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null}}),
        )
    }

    fn next(&mut self, state: &mut State, cx: &Context<'_>) -> Next {
        let identity = self.caller.identity.clone();
        let kind = self.selection.kind.id;
        if state.faults.dead(&identity, self.epoch) {
            return Next::Never;
        }
        if state.faults.is_cut(&identity, self.id) {
            return Next::End;
        }
        let now = Instant::now();
        if now >= self.deadline {
            return Next::End;
        }
        while let Some(table) = state.store.table(kind) {
            if table.oldest > self.cursor {
                let gone = status::expired(self.cursor, table.oldest);
                return Next::Last(line("ERROR", &status_value(&gone)));
            }
            let Some(entry) = table.since(self.cursor).next() else { break };
            if let Some(range) = &self.delay {
                let due = match self.due {
                    Some((version, due)) if version == entry.version => due,
                    last => {
                        let (version, at) = (entry.version, entry.at);
                        let due = at + state.faults.duration(&identity, range);
                        let due = last.map_or(due, |(_, before)| due.max(before));
                        self.due = Some((version, due));
                        due
                    }
                };
                if due > now {
                    state.faults.watch_waits(&identity, self.id, cx.waker());
                    return Next::Until(due.min(self.deadline));
                }
            }
            let Some(entry) = state.store.table(kind).and_then(|t| t.since(self.cursor).next()) else { break };
            let version = entry.version;
            let event = self.event(entry);
            if event.is_some() && self.events_left == Some(0) {
                // The gap: this event and those after it never arrive, and the history is gone as well.
                let head = state.store.version();
                state.faults.lose_before(&identity, kind, head);
                return Next::End;
            }
            self.cursor = version;
            if let Some(event) = event {
                self.events_left = self.events_left.map(|n| n - 1);
                return Next::Event(event);
            }
        }
        state.store.table_mut(kind).wait(self.id, cx.waker());
        state.faults.watch_waits(&identity, self.id, cx.waker());
        Next::Until(self.deadline)
    }
}

impl http_body::Body for Watch {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.done {
                return Poll::Ready(None);
            }
            let core = this.core.clone();
            let next = this.next(&mut core.lock(), cx);
            match next {
                Next::Event(bytes) => {
                    if this.repeats {
                        this.ready.push_back(bytes.clone());
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Next::Last(bytes) => {
                    this.done = true;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Next::End => {
                    this.done = true;
                    return Poll::Ready(None);
                }
                Next::Never => return Poll::Pending,
                Next::Until(until) => {
                    let head = core.lock().store.version();
                    let until =
                        if this.bookmarks && this.due.is_none_or(|(v, _)| v <= this.cursor) && head > this.bookmarked {
                            until.min(Instant::now() + BOOKMARK_EVERY)
                        } else {
                            until
                        };
                    match &mut this.sleep {
                        Some(sleep) if sleep.deadline() <= until && !sleep.is_elapsed() => {}
                        Some(sleep) => sleep.as_mut().reset(until),
                        none => *none = Some(Box::pin(tokio::time::sleep_until(until))),
                    }
                    let Some(sleep) = &mut this.sleep else { return Poll::Pending };
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let caught_up = {
                        let state = core.lock();
                        state.store.table(this.selection.kind.id).is_none_or(|t| t.since(this.cursor).next().is_none())
                    };
                    if this.bookmarks && caught_up && Instant::now() < this.deadline {
                        let head = core.lock().store.version();
                        if head > this.bookmarked {
                            this.cursor = head;
                            this.bookmarked = head;
                            return Poll::Ready(Some(Ok(Frame::data(this.bookmark(head)))));
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.core.lock();
        state.store.table_mut(self.selection.kind.id).forget(self.id);
        state.faults.watch_ended(&self.caller.identity, self.id);
    }
}
