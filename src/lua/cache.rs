//! A small cache that forgets what was used longest ago.

use std::{collections::HashMap, hash::Hash};

struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

/// Holds at most `entries` values of at most `weight` in sum.
pub(super) struct Lru<K, V> {
    entries: usize,
    weight: usize,
    map: HashMap<K, Entry<V>>,
    total: usize,
    clock: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    pub fn new(entries: usize, weight: usize) -> Self {
        Self { entries, weight, map: HashMap::new(), total: 0, clock: 0 }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.map.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Keeps the value, unless it alone is heavier than the whole cache may be.
    pub fn put(&mut self, key: K, value: V, weight: usize) {
        if self.entries == 0 || weight > self.weight {
            return;
        }
        self.clock += 1;
        if let Some(old) = self.map.insert(key, Entry { value, weight, used: self.clock }) {
            self.total -= old.weight;
        }
        self.total += weight;
        while self.map.len() > self.entries || self.total > self.weight {
            // A scan: the caches hold a few hundred entries, and a put follows a compilation or a script's run.
            let Some(oldest) = self.map.iter().min_by_key(|(_, e)| e.used).map(|(k, _)| k.clone()) else { break };
            if let Some(gone) = self.map.remove(&oldest) {
                self.total -= gone.weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_one_used_longest_ago() {
        let mut lru = Lru::new(2, 100);
        lru.put("a", 1, 1);
        lru.put("b", 2, 1);
        assert_eq!(lru.get(&"a"), Some(1));
        lru.put("c", 3, 1);
        assert_eq!((lru.get(&"a"), lru.get(&"b"), lru.get(&"c")), (Some(1), None, Some(3)));
    }

    #[test]
    fn keeps_to_its_weight() {
        let mut lru = Lru::new(10, 10);
        lru.put("a", 1, 6);
        lru.put("b", 2, 6);
        assert_eq!((lru.get(&"a"), lru.get(&"b")), (None, Some(2)));
        lru.put("c", 3, 11);
        assert_eq!(lru.get(&"c"), None);
        lru.put("b", 4, 1);
        lru.put("d", 5, 9);
        assert_eq!((lru.get(&"b"), lru.get(&"d")), (Some(4), Some(5)));
    }
}
