//! The document of one event in the search index, with gaps for what the ledger sets; the same
//! bytes as `sinks/documents.py` makes.

use std::net::IpAddr;

use crate::decode::{Entry, Event};
use crate::event::Parts;
use crate::program::{Place, Program};
use crate::text::{push_hex, push_number, push_time};

const EFFECTIVE: &[u8] = b"on_behalf_of";

#[derive(Clone, Copy, Default)]
pub enum Slot {
    #[default]
    Empty,
    /// A range of the scratch.
    Json(u32, u32),
    Late,
    LeafIndex,
    Log,
    Ingested,
}

/// What a document has beside the event's values.
pub struct Facts<'e> {
    pub leaf_hash: &'e [u8; 32],
    pub offset: i64,
    pub schema_id: i32,
    pub broker_timestamp_ms: i64,
    pub occurred_at_us: i64,
    /// In quotes.
    pub actor_ref: Option<&'e [u8]>,
    /// In quotes, sorted, each once.
    pub subject_refs: Vec<&'e [u8]>,
}

struct Builder<'e, 'a> {
    program: &'a Program,
    entries: &'e [Entry<'a>],
    scratch: &'e mut Vec<u8>,
    slots: &'e mut Vec<Slot>,
}

/// Append the document without its beginning (`head`) to `out`, and note where its gaps are.
pub fn push_document(
    out: &mut Vec<u8>,
    parts: &mut Parts,
    program: &Program,
    event: &mut Event,
    facts: &Facts,
) {
    event.slots.clear();
    event.slots.resize(program.fields.len(), Slot::Empty);
    let mut builder = Builder {
        program,
        entries: &event.entries[..event.count],
        scratch: &mut event.json,
        slots: &mut event.slots,
    };
    builder.plain();
    builder.server(facts);
    builder.unmapped();
    builder.arrays();
    builder.people();
    builder.source();
    let mut is_first = true;
    for (slot, name) in event.slots.iter().zip(&program.field_names) {
        if matches!(slot, Slot::Empty) {
            continue;
        }
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        out.extend_from_slice(name);
        let here = out.len() as u32;
        match slot {
            Slot::Json(start, end) => {
                out.extend_from_slice(&event.json[*start as usize..*end as usize]);
            }
            Slot::Late => parts.late = here,
            Slot::LeafIndex => parts.leaf_index = here,
            Slot::Log => parts.log = here,
            Slot::Ingested => parts.ingested = here,
            Slot::Empty => {}
        }
    }
    out.push(b'}');
}

impl<'a> Builder<'_, 'a> {
    fn place(&self, entry: &Entry) -> Place {
        self.program.paths[entry.path as usize].place
    }

    /// A field whose value is written by `write`.
    fn fill(&mut self, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.scratch.len() as u32;
        write(self.scratch);
        self.slots[field as usize] = Slot::Json(start, self.scratch.len() as u32);
    }

    /// A list of values, each a range of the scratch.
    fn fill_list(&mut self, field: u32, values: &[(u32, u32)]) {
        let start = self.scratch.len();
        self.scratch.push(b'[');
        for (at, &(from, to)) in values.iter().enumerate() {
            if at > 0 {
                self.scratch.push(b',');
            }
            self.scratch.extend_from_within(from as usize..to as usize);
        }
        self.scratch.push(b']');
        self.slots[field as usize] = Slot::Json(start as u32, self.scratch.len() as u32);
    }

    fn plain(&mut self) {
        for entry in self.entries {
            if let Place::Plain { field } = self.place(entry) {
                self.slots[field as usize] = Slot::Json(entry.start, entry.end);
            }
        }
    }

    fn server(&mut self, facts: &Facts) {
        let derived = &self.program.derived;
        let quoted_time = |time_us: i64| {
            move |out: &mut Vec<u8>| {
                out.push(b'"');
                push_time(out, time_us);
                out.push(b'"');
            }
        };
        self.fill(derived.timestamp, quoted_time(facts.occurred_at_us));
        self.fill(derived.created, quoted_time(facts.broker_timestamp_ms * 1000));
        self.fill(derived.hash, |out| {
            out.push(b'"');
            push_hex(out, facts.leaf_hash);
            out.push(b'"');
        });
        self.fill(derived.offset, |out| push_number(out, facts.offset));
        self.fill(derived.schema_id, |out| push_number(out, i64::from(facts.schema_id)));
        self.slots[derived.late as usize] = Slot::Late;
        self.slots[derived.leaf_index as usize] = Slot::LeafIndex;
        self.slots[derived.log as usize] = Slot::Log;
        self.slots[derived.ingested as usize] = Slot::Ingested;
        if let Some(actor_ref) = facts.actor_ref {
            self.fill(derived.actor_ref, |out| out.extend_from_slice(actor_ref));
        }
        if !facts.subject_refs.is_empty() {
            self.fill(derived.subject_ref, |out| {
                out.push(b'[');
                out.extend_from_slice(&facts.subject_refs.join(&b','));
                out.push(b']');
            });
        }
    }

    fn unmapped(&mut self) {
        let mut values: Vec<Entry> = self.entries.to_vec();
        values.retain(|entry| self.place(entry) == Place::Unmapped);
        if values.is_empty() {
            return;
        }
        values.sort_unstable_by_key(|entry| entry.path);
        let start = self.scratch.len() as u32;
        self.scratch.push(b'{');
        for (at, entry) in values.iter().enumerate() {
            if at > 0 {
                self.scratch.push(b',');
            }
            self.scratch.extend_from_slice(&self.program.paths[entry.path as usize].name);
            self.scratch.extend_from_within(entry.start as usize..entry.end as usize);
        }
        self.scratch.push(b'}');
        let field = self.program.derived.unmapped as usize;
        self.slots[field] = Slot::Json(start, self.scratch.len() as u32);
    }

    /// Arrays of objects: elements by index, members by name; and targets as users too.
    fn arrays(&mut self) {
        let mut members: Vec<(u32, u32, u32, Entry<'a>)> = Vec::new();
        for entry in self.entries {
            if let Place::Member { array, index, member } = self.place(entry) {
                members.push((array, index, member, *entry));
            }
        }
        members.sort_unstable_by_key(|&(array, index, member, _)| (array, index, member));
        for of_array in members.chunk_by(|one, other| one.0 == other.0) {
            let array = of_array[0].0;
            let start = self.scratch.len() as u32;
            self.scratch.push(b'[');
            for (at, record) in of_array.chunk_by(|one, other| one.1 == other.1).enumerate() {
                if at > 0 {
                    self.scratch.push(b',');
                }
                for (place, (_, _, member, entry)) in record.iter().enumerate() {
                    self.scratch.push(if place == 0 { b'{' } else { b',' });
                    let names = &self.program.arrays[array as usize].names;
                    self.scratch.extend_from_slice(&names[*member as usize]);
                    self.scratch.extend_from_within(entry.start as usize..entry.end as usize);
                }
                self.scratch.push(b'}');
            }
            self.scratch.push(b']');
            let field = self.program.arrays[array as usize].field as usize;
            self.slots[field] = Slot::Json(start, self.scratch.len() as u32);
            if self.program.derived.targets == Some(array) {
                self.users(of_array);
            }
        }
    }

    /// Who was acted on, and on whose behalf, under the names that ECS has for users.
    fn users(&mut self, targets: &[(u32, u32, u32, Entry<'a>)]) {
        let derived = &self.program.derived;
        let mut found: [[Vec<(u32, u32)>; 3]; 2] = Default::default();
        for target in targets.chunk_by(|one, other| one.1 == other.1) {
            let relation = target.iter().find(|each| Some(each.2) == derived.relation);
            let is_effective = relation.is_some_and(|each| each.3.text == EFFECTIVE);
            for (at, name) in derived.person.iter().enumerate() {
                if let Some(each) = target.iter().find(|each| Some(each.2) == *name) {
                    found[usize::from(is_effective)][at].push((each.3.start, each.3.end));
                }
            }
        }
        for (fields, lists) in [derived.target_user, derived.effective_user].iter().zip(&found) {
            for (&field, list) in fields.iter().zip(lists) {
                if !list.is_empty() {
                    self.fill_list(field, list);
                }
            }
        }
    }

    /// Every name of a person in the event, so that one click finds what else they did.
    fn people(&mut self) {
        let mut people: Vec<(&[u8], u32, u32)> = self
            .entries
            .iter()
            .filter(|entry| self.program.paths[entry.path as usize].is_person)
            .map(|entry| (entry.text, entry.start, entry.end))
            .collect();
        if people.is_empty() {
            return;
        }
        people.sort_unstable();
        people.dedup_by_key(|each| each.0);
        let values: Vec<(u32, u32)> = people.iter().map(|&(_, start, end)| (start, end)).collect();
        self.fill_list(self.program.derived.related_user, &values);
    }

    /// Addresses and hosts, each where the mapping takes it.
    fn source(&mut self) {
        let derived = &self.program.derived;
        let text_of = |field: u32| {
            let is_it = |entry: &&Entry| self.place(entry) == Place::Plain { field };
            self.entries.iter().rfind(is_it).map(|entry| (entry.text, entry.start, entry.end))
        };
        let mut hosts: Vec<(&[u8], u32, u32)> =
            text_of(derived.source_domain).into_iter().collect();
        if let Some((text, start, end)) = text_of(derived.source_ip) {
            if is_ip(text) {
                self.fill_list(derived.related_ip, &[(start, end)]);
            } else {
                self.slots[derived.source_address as usize] = Slot::Json(start, end);
                self.slots[derived.source_ip as usize] = Slot::Empty;
                hosts.push((text, start, end));
            }
        }
        if !hosts.is_empty() {
            hosts.sort_unstable();
            hosts.dedup_by_key(|each| each.0);
            let values: Vec<(u32, u32)> =
                hosts.iter().map(|&(_, start, end)| (start, end)).collect();
            self.fill_list(derived.related_hosts, &values);
        }
    }
}

/// What an index field of type `ip` takes: no zone, no port, no leading zeros.
fn is_ip(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}
