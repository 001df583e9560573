//! What to do with events of one writer's schema; `sinks/program.py` writes it, as JSON.
//!
//! Every path that an event can have is listed, sorted, so that a path is a number here and sorting
//! by numbers sorts by name. Whatever the listing lacks is left to the form in Python.

use crate::text::json_name;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum Value {
    /// At most `max` characters.
    String {
        max: usize,
    },
    Int,
    Long,
    Boolean,
    /// Symbols with their quotes.
    Enum {
        symbols: Vec<String>,
    },
    Array {
        max: usize,
        item: Box<Value>,
    },
    /// A map of texts; bounds in bytes.
    Map {
        max: usize,
        key_max: usize,
        value_max: usize,
    },
    /// An array or map of an unusual type: only an empty one is read.
    Empty,
    /// Left to the form in Python.
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    Leaf {
        path: u32,
        value: Value,
    },
    /// `None` is null.
    Union {
        branches: Vec<Option<Vec<Op>>>,
    },
    /// A party other than the actor begins.
    Party {
        group: u32,
    },
    /// An array of records, written out for each index.
    Records {
        items: Vec<Vec<Op>>,
    },
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Plain {
        field: u32,
    },
    /// Member `member` (by name) of element `index` of array `array`.
    Member {
        array: u32,
        index: u32,
        member: u32,
    },
    Unmapped,
    /// The server sets a field of this name itself.
    Nowhere,
}

#[derive(Deserialize)]
pub struct Path {
    pub path: String,
    /// The group that owns it; none: clear.
    pub group: Option<u32>,
    pub place: Place,
    pub is_person: bool,
    #[serde(skip)]
    pub name: Vec<u8>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Actor,
    Party,
    /// Outside of a party: the first party of its kind, which is group `first`, else the actor.
    FirstParty {
        first: Option<u32>,
    },
    Unattributed,
}

#[derive(Deserialize)]
pub struct Group {
    pub kind: Kind,
    pub tenant: Option<u32>,
    pub id_type: Option<u32>,
    pub id: Option<u32>,
}

/// An array of objects in the document; members sorted by name.
#[derive(Deserialize)]
pub struct Array {
    pub field: u32,
    pub members: Vec<String>,
    #[serde(skip)]
    pub names: Vec<Vec<u8>>,
}

/// Paths that the pipeline itself reads.
#[derive(Deserialize)]
pub struct Roles {
    pub event_id: u32,
    pub tenant: u32,
    pub action: u32,
    pub outcome: u32,
    pub severity: u32,
    pub actor_type: u32,
    pub actor_id: Option<u32>,
    pub occurred_at: u32,
    pub imported: u32,
    pub activity: Option<u32>,
}

/// Fields of the document that follow from others, or that the server sets.
#[derive(Deserialize)]
pub struct Derived {
    pub timestamp: u32,
    pub created: u32,
    pub ingested: u32,
    pub hash: u32,
    pub log: u32,
    pub leaf_index: u32,
    pub offset: u32,
    pub schema_id: u32,
    pub late: u32,
    pub actor_ref: u32,
    pub subject_ref: u32,
    pub unmapped: u32,
    pub related_user: u32,
    pub related_ip: u32,
    pub related_hosts: u32,
    pub source_ip: u32,
    pub source_domain: u32,
    pub source_address: u32,
    /// Which array the targets are, and its members (relation, then id, name, email).
    pub targets: Option<u32>,
    pub relation: Option<u32>,
    pub person: [Option<u32>; 3],
    pub target_user: [u32; 3],
    pub effective_user: [u32; 3],
}

#[derive(Deserialize)]
pub struct Program {
    pub family: String,
    pub ops: Vec<Op>,
    pub paths: Vec<Path>,
    pub groups: Vec<Group>,
    pub fields: Vec<String>,
    pub arrays: Vec<Array>,
    pub roles: Roles,
    pub derived: Derived,
    #[serde(skip)]
    pub field_names: Vec<Vec<u8>>,
}

impl Program {
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let mut program: Program = serde_json::from_str(text)?;
        for path in &mut program.paths {
            path.name = json_name(&path.path);
        }
        for array in &mut program.arrays {
            array.names = array.members.iter().map(|name| json_name(name)).collect();
        }
        program.field_names = program.fields.iter().map(|name| json_name(name)).collect();
        Ok(program)
    }
}
