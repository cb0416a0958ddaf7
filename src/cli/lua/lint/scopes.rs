//! Which name is which: locals by block, and what a script does with globals.

use std::collections::{BTreeMap, HashMap};

use full_moon::tokenizer::Position;

/// A local variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Local(usize);

/// What a script calls a global, or a field of one.
pub(super) struct Use {
    pub name: String,
    pub field: Option<String>,
    pub at: Position,
}

#[derive(Default)]
pub(super) struct Scopes {
    blocks: Vec<HashMap<String, Local>>,
    /// For each local, the number of blocks around it.
    depths: Vec<usize>,
    /// Locals that are another name for a function of the host, such as `table.insert`.
    aliases: HashMap<Local, String>,
    pub reads: Vec<Use>,
    /// Globals that the script sets, and where first; `a.b` for a field.
    pub writes: BTreeMap<String, Position>,
}

impl Scopes {
    pub fn open(&mut self) {
        self.blocks.push(HashMap::new());
    }

    pub fn close(&mut self) {
        self.blocks.pop();
    }

    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    pub fn declare(&mut self, name: &str) -> Local {
        let local = Local(self.depths.len());
        self.depths.push(self.blocks.len());
        if let Some(block) = self.blocks.last_mut() {
            block.insert(name.to_owned(), local);
        }
        local
    }

    pub fn find(&self, name: &str) -> Option<Local> {
        self.blocks.iter().rev().find_map(|block| block.get(name)).copied()
    }

    /// The number of blocks around a local; 0 for a global.
    pub fn depth_of(&self, local: Option<Local>) -> usize {
        local.and_then(|Local(i)| self.depths.get(i)).copied().unwrap_or(0)
    }

    pub fn alias(&mut self, local: Local, of: String) {
        self.aliases.insert(local, of);
    }

    /// The host's name for what this name stands for: itself for a global, what it was set to for a local.
    pub fn host_name(&self, name: &str) -> Option<String> {
        match self.find(name) {
            None => Some(name.to_owned()),
            Some(local) => self.aliases.get(&local).cloned(),
        }
    }

    pub fn read(&mut self, name: &str, field: Option<String>, at: Position) {
        if self.find(name).is_none() {
            self.reads.push(Use { name: name.to_owned(), field, at });
        }
    }

    pub fn write(&mut self, name: &str, field: Option<String>, at: Position) {
        if self.find(name).is_none() {
            let whole = field.map_or_else(|| name.to_owned(), |field| format!("{name}.{field}"));
            self.writes.entry(whole).or_insert(at);
        }
    }
}
