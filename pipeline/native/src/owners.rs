//! Whose values are whose: from groups to data subjects, as `sinks/prepare.py` has it.

use std::collections::HashSet;
use std::ops::Range;

use crate::decode::Event;
use crate::program::{Kind, Program};
use crate::ring::push_subject;
use crate::text::push_month;

const UNKNOWN: &[u8] = b"unknown";
const ANONYMOUS: &[u8] = b"anonymous";
pub const UNATTRIBUTED: &str = "\0unattributed";

pub type Tenants = HashSet<Vec<u8>>;

/// One subject, and where its values stand among the event's entries, sorted by path.
pub struct Owned {
    /// The subject's name in the ring.
    pub name: Vec<u8>,
    pub is_unattributed: bool,
    pub values: Range<usize>,
}

struct Resolver<'e, 'a> {
    program: &'a Program,
    event: &'e Event<'a>,
    tenants: &'e Tenants,
    tenant: &'a [u8],
    occurred_at_us: i64,
}

/// Each subject once, with the values that are sealed to it; the actor first. `None`: a tenant is
/// not known, or something is missing that the form in Python judges.
pub fn owners<'a>(
    program: &'a Program,
    event: &mut Event<'a>,
    tenants: &Tenants,
    tenant: &'a [u8],
    occurred_at_us: i64,
) -> Option<Vec<Owned>> {
    let resolver = Resolver { program, event, tenants, tenant, occurred_at_us };
    let mut owned = Vec::with_capacity(event.groups.len());
    let mut shared: Vec<(usize, Range<usize>)> = Vec::new();
    owned.push(Owned { values: event.range_of(program, Some(0)), ..resolver.actor()? });
    for &group in &event.groups[1..] {
        let subject = resolver.subject(group, &owned[0])?;
        let values = event.range_of(program, Some(group));
        if values.is_empty() {
            continue;
        }
        match owned.iter().position(|known| known.name == subject.name) {
            Some(known) => shared.push((known, values)),
            None => owned.push(Owned { values, ..subject }),
        }
    }
    // The values of a subject in several roles: copied to where they stand together.
    for (known, values) in shared {
        let start = event.entries.len();
        event.entries.extend_from_within(owned[known].values.clone());
        event.entries.extend_from_within(values);
        event.entries[start..].sort_unstable_by_key(|entry| entry.path);
        owned[known].values = start..event.entries.len();
    }
    if owned[0].values.is_empty() {
        owned.remove(0);
    }
    Some(owned)
}

impl<'a> Resolver<'_, 'a> {
    fn actor(&self) -> Option<Owned> {
        let tenant = self.known_tenant(self.program.groups[0].tenant)?;
        let id = self.id(0);
        let id_type = self.clear(self.program.groups[0].id_type)?;
        let kind = self.clear(Some(self.program.roles.actor_type))?;
        if id.is_empty() || id_type == UNKNOWN || kind == ANONYMOUS {
            return Some(self.unattributed());
        }
        Some(attributed(tenant, id_type, id))
    }

    fn subject(&self, group: u32, actor: &Owned) -> Option<Owned> {
        match self.program.groups[group as usize].kind {
            Kind::Unattributed => Some(self.unattributed()),
            Kind::FirstParty { first } => match first {
                Some(first) if self.event.groups.contains(&first) => self.party(first),
                _ => Some(Owned {
                    name: actor.name.clone(),
                    is_unattributed: actor.is_unattributed,
                    values: 0..0,
                }),
            },
            Kind::Party => self.party(group),
            Kind::Actor => None,
        }
    }

    fn party(&self, group: u32) -> Option<Owned> {
        let tenant = self.known_tenant(self.program.groups[group as usize].tenant)?;
        let id = self.id(group);
        let id_type = self.clear(self.program.groups[group as usize].id_type).unwrap_or(UNKNOWN);
        if id.is_empty() || id_type == UNKNOWN {
            return Some(self.unattributed());
        }
        Some(attributed(tenant, id_type, id))
    }

    fn known_tenant(&self, path: Option<u32>) -> Option<&'a [u8]> {
        let tenant = self.clear(path)?;
        self.tenants.contains(tenant).then_some(tenant)
    }

    /// A text that is clear.
    fn clear(&self, path: Option<u32>) -> Option<&'a [u8]> {
        let path = path?;
        let is_clear = self.program.paths[path as usize].group.is_none();
        self.event.find(path).filter(|_| is_clear).map(|entry| entry.text)
    }

    /// The id of a group's party, whether clear or sealed to the party; empty if there is none.
    fn id(&self, group: u32) -> &'a [u8] {
        let Some(path) = self.program.groups[group as usize].id else { return b"" };
        let owner = self.program.paths[path as usize].group;
        let found = self.event.find(path).filter(|_| owner.is_none() || owner == Some(group));
        found.map_or(b"", |entry| entry.text)
    }

    fn unattributed(&self) -> Owned {
        let mut month = Vec::new();
        push_month(&mut month, self.occurred_at_us, '-');
        let mut subject = attributed(self.tenant, UNATTRIBUTED.as_bytes(), &month);
        subject.is_unattributed = true;
        subject
    }
}

fn attributed(tenant: &[u8], id_type: &[u8], id: &[u8]) -> Owned {
    let mut name = Vec::with_capacity(64);
    push_subject(&mut name, tenant, id_type, id);
    Owned { name, is_unattributed: false, values: 0..0 }
}
