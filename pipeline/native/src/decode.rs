//! From Avro bytes to values by path, in one pass over the bytes.
//!
//! Only what is plainly acceptable is read: at the first thing that is not, `None`, and the form in
//! Python, which knows every refusal by name, reads the record again.

use std::ops::Range;

use crate::document::Slot;
use crate::program::{Op, Program, Value};
use crate::text::{push_json_text, push_number};

/// One value of an event: its JSON lies in `Event::json`.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    pub path: u32,
    pub start: u32,
    pub end: u32,
    /// The text of a string or a symbol; empty for other types.
    pub text: &'a [u8],
    pub number: i64,
}

/// One event's values; made once, used for one record after the other.
#[derive(Default)]
pub struct Event<'a> {
    pub json: Vec<u8>,
    pub entries: Vec<Entry<'a>>,
    /// Groups that the event has, in the order in which they came; the actor's is 0.
    pub groups: Vec<u32>,
    /// How many entries were read; copies of some may follow.
    pub count: usize,
    /// Room for what is hashed.
    pub messages: Vec<u8>,
    /// Room for the document's fields.
    pub slots: Vec<Slot>,
}

impl<'a> Event<'a> {
    pub fn find(&self, path: u32) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Where the values of a group stand (none: the clear ones), sorted by path.
    pub fn range_of(&self, program: &Program, group: Option<u32>) -> Range<usize> {
        let owner = |entry: &Entry| program.paths[entry.path as usize].group;
        let read = &self.entries[..self.count];
        let start = read.partition_point(|entry| owner(entry) < group);
        start..start + read[start..].partition_point(|entry| owner(entry) == group)
    }

    pub fn json_of(&self, entry: &Entry<'a>) -> &[u8] {
        &self.json[entry.start as usize..entry.end as usize]
    }

    fn note_group(&mut self, group: u32) {
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
    }
}

/// Read a record's body into values sorted by owner and path; it must end where its bytes do.
pub fn decode<'a>(program: &'a Program, body: &'a [u8], event: &mut Event<'a>) -> Option<()> {
    event.json.clear();
    event.entries.clear();
    event.groups.clear();
    event.groups.push(0);
    let mut reader = Reader { body, at: 0, program };
    reader.ops(&program.ops, event)?;
    event.count = event.entries.len();
    event
        .entries
        .sort_unstable_by_key(|entry| (program.paths[entry.path as usize].group, entry.path));
    (reader.at == body.len()).then_some(())
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    program: &'a Program,
}

impl<'a> Reader<'a> {
    fn ops(&mut self, ops: &'a [Op], event: &mut Event<'a>) -> Option<()> {
        for op in ops {
            match op {
                Op::Leaf { path, value } => self.leaf(*path, value, event)?,
                Op::Union { branches } => {
                    if let Some(ops) = branches.get(self.index()?)? {
                        self.ops(ops, event)?;
                    }
                }
                Op::Party { group } => event.note_group(*group),
                Op::Records { items } => self.records(items, event)?,
            }
        }
        Some(())
    }

    fn records(&mut self, items: &'a [Vec<Op>], event: &mut Event<'a>) -> Option<()> {
        let mut seen = 0;
        loop {
            let count = self.index()?;
            if count == 0 {
                return Some(());
            }
            for _ in 0..count {
                self.ops(items.get(seen)?, event)?;
                seen += 1;
            }
        }
    }

    fn leaf(&mut self, path: u32, value: &'a Value, event: &mut Event<'a>) -> Option<()> {
        let start = event.json.len();
        let (text, number, is_empty) = self.value(value, &mut event.json)?;
        if is_empty {
            event.json.truncate(start);
            return Some(());
        }
        if let Some(group) = self.program.paths[path as usize].group {
            event.note_group(group);
        }
        let end = event.json.len() as u32;
        event.entries.push(Entry { path, start: start as u32, end, text, number });
        Some(())
    }

    /// Write a value as JSON; its text, its number, and whether it is an array or map without items.
    fn value(&mut self, value: &'a Value, out: &mut Vec<u8>) -> Option<(&'a [u8], i64, bool)> {
        match value {
            Value::String { max } => {
                let text = self.text()?;
                short(text, *max)?;
                push_json_text(out, text).then_some((text, 0, false))
            }
            Value::Int => {
                let number = i64::from(i32::try_from(self.long()?).ok()?);
                push_number(out, number);
                Some((&[], number, false))
            }
            Value::Long => {
                let number = self.long()?;
                push_number(out, number);
                Some((&[], number, false))
            }
            Value::Boolean => {
                let flag = self.byte()?;
                out.extend_from_slice(match flag {
                    0 => b"false",
                    1 => b"true",
                    _ => return None,
                });
                Some((&[], i64::from(flag), false))
            }
            Value::Enum { symbols } => {
                let quoted = symbols.get(self.index()?)?.as_bytes();
                out.extend_from_slice(quoted);
                Some((&quoted[1..quoted.len() - 1], 0, false))
            }
            Value::Array { max, item } => Some((&[], 0, self.array(*max, item, out)?)),
            Value::Map { max, key_max, value_max } => {
                Some((&[], 0, self.map(*max, *key_max, *value_max, out)?))
            }
            Value::Empty => (self.byte()? == 0).then_some((&[], 0, true)),
            Value::Other => None,
        }
    }

    fn array(&mut self, max: usize, item: &'a Value, out: &mut Vec<u8>) -> Option<bool> {
        let mut seen = 0;
        out.push(b'[');
        loop {
            let count = self.index()?;
            if count == 0 {
                out.push(b']');
                return Some(seen == 0);
            }
            if seen + count > max {
                return None;
            }
            for _ in 0..count {
                if seen > 0 {
                    out.push(b',');
                }
                self.value(item, out)?;
                seen += 1;
            }
        }
    }

    /// Pairs sorted by key; a key that comes twice is refused.
    fn map(
        &mut self,
        max: usize,
        key_max: usize,
        value_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
        loop {
            let count = self.index()?;
            if count == 0 {
                break;
            }
            if pairs.len() + count > max {
                return None;
            }
            for _ in 0..count {
                let (key, text) = (self.text()?, self.text()?);
                if key.len() > key_max || text.len() > value_max {
                    return None;
                }
                pairs.push((key, text));
            }
        }
        pairs.sort_unstable();
        if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
            return None;
        }
        out.push(b'{');
        for (at, (key, text)) in pairs.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if !push_json_text(out, key) {
                return None;
            }
            out.push(b':');
            if !push_json_text(out, text) {
                return None;
            }
        }
        out.push(b'}');
        Some(pairs.is_empty())
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.index()?;
        let text = self.body.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(text)
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.body.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A length, a count, a branch or a symbol: not negative.
    fn index(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    /// A zig-zag long of at most nine bytes.
    fn long(&mut self) -> Option<i64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        None
    }
}

/// No text has more characters than bytes.
fn short(text: &[u8], max: usize) -> Option<()> {
    (text.len() <= max || std::str::from_utf8(text).ok()?.chars().count() <= max).then_some(())
}
