//! What must hold between operations.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;

/// Linked tables, leaves, the processor's cache: all as the oracle says.
impl<F: Format> Host<F> {
    /// Everything that must hold between operations.
    pub(super) fn check(&self) {
        let mut leaves = Vec::new();
        let mut at = cursor(0, PAGES);
        self.tables
            .leaves(&self.memory, &mut at, usize::MAX, |mapping| {
                leaves.push(mapping)
            });
        assert_eq!(expand(&leaves, &self.tables), self.oracle);
        let linked = self.count_tables(self.tables.root, 4);
        assert!(linked <= self.tables.table_count());
        assert_eq!(self.memory.live() as u64, self.tables.table_count());
        for (&page, &(host, write)) in &self.cache {
            let page = self
                .oracle
                .get(&page)
                .expect("a stale translation survived its flush");
            assert_eq!(page.host, host, "a stale address survived its flush");
            assert!(
                !write || (page.access.write && page.dirty),
                "a stale right survived its flush"
            );
        }
    }

    /// Linked tables; checks on the way that none is empty and that `dirty_below` keeps its promise.
    fn count_tables(&self, table: Frame, level: u8) -> u64 {
        let mut count = 1;
        let entries =
            (0..ENTRIES_PER_TABLE).map(|index| F::decode(self.memory.read(table, index), level));
        let mut used = 0;
        for entry in entries {
            used += usize::from(entry != Entry::Empty);
            if let Entry::Table {
                address,
                dirty_below,
            } = entry
            {
                count += self.count_tables(address.frame(), level - 1);
                if level == 2 && !dirty_below {
                    let logged = |leaf: &Leaf| {
                        let at = |page: &&u64| {
                            self.oracle
                                .get(page)
                                .is_some_and(|page| page.host == leaf.address.0)
                        };
                        self.log.iter().any(|page| at(&page))
                    };
                    let dirty = (0..ENTRIES_PER_TABLE).any(|index| {
                        let below = F::decode(self.memory.read(address.frame(), index), 1);
                        matches!(below, Entry::Leaf(leaf) if self.tables.is_dirty(&leaf)
                            && leaf.memory_type == MemoryType::WriteBack && !logged(&leaf))
                    });
                    assert!(!dirty, "a dirty page below an entry that promises none");
                }
            }
        }
        assert!(
            used > 0 || table == self.tables.root,
            "an empty table is linked"
        );
        count
    }
}

/// Leaves as pages.
pub(super) fn expand<F: Format>(
    leaves: &[Mapping],
    tables: &NestedTables<F>,
) -> BTreeMap<u64, Page> {
    let mut pages = BTreeMap::new();
    for mapping in leaves {
        for n in 0..mapping.size.bytes() / PAGE {
            let page = Page {
                host: mapping.leaf.address.0 + n * PAGE,
                access: mapping.leaf.permitted(),
                memory_type: mapping.leaf.memory_type,
                dirty: tables.is_dirty(&mapping.leaf),
            };
            let old = pages.insert((mapping.guest.0 - BASE) / PAGE + n, page);
            assert_eq!(old, None, "a page is mapped twice");
        }
    }
    pages
}
