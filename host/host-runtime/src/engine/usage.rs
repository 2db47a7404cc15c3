//! The account of a guest: what it has used, beside what it may. Nothing is limited here; the meter does that.

use super::Budget;

/// What was used of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Use {
    /// In all calls together; of memory and tables, what there is.
    pub all: u64,
    /// In the call that used most.
    pub most: u64,
    /// What one call may use; of memory and tables, what there may be. 0 = not limited by this.
    pub limit: u64,
}

impl Use {
    /// One more call has used so much.
    pub fn add(&mut self, amount: u64) {
        self.all = self.all.saturating_add(amount);
        self.most = self.most.max(amount);
    }

    /// What two have used, one after the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_add(other.all),
            most: self.most.max(other.most),
            limit: self.limit.max(other.limit),
        }
    }
}

/// The account of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Instructions, by wasmtime's count.
    pub fuel: Use,
    /// Calls of the host's.
    pub host_calls: Use,
    /// Linear memory.
    pub memory_bytes: Use,
    /// Elements of tables.
    pub table_elements: Use,
    /// Bytes that came and went in calls of the host's; `most` and `limit` are of one such call.
    pub host_call_bytes: Use,
    /// Handles that it holds of the host's; of a library, open files of its process.
    pub handles: Use,
}

impl Usage {
    /// Nothing, of this budget.
    pub(super) fn within(budget: &Budget) -> Self {
        let of = |limit: u64| Use {
            limit,
            ..Use::default()
        };
        Self {
            fuel: of(budget.fuel),
            host_calls: of(budget.host_calls.into()),
            memory_bytes: of(budget.memory_bytes as u64),
            table_elements: of(budget.table_elements as u64),
            host_call_bytes: of(budget.hostcall_bytes as u64),
            handles: of(budget.handles as u64),
        }
    }

    /// The account of instances of one build that came one after the other.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let now = |before: Use, later: Use| Use {
            all: later.all,
            ..before.and(later)
        };
        Self {
            fuel: self.fuel.and(later.fuel),
            host_calls: self.host_calls.and(later.host_calls),
            memory_bytes: now(self.memory_bytes, later.memory_bytes),
            table_elements: now(self.table_elements, later.table_elements),
            host_call_bytes: self.host_call_bytes.and(later.host_call_bytes),
            handles: now(self.handles, later.handles),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_add_up_and_the_costliest_is_remembered() {
        let mut fuel = Use::default();
        for spent in [3, 9, 1] {
            fuel.add(spent);
        }
        assert_eq!((fuel.all, fuel.most), (13, 9));
    }

    #[test]
    fn of_two_instances_the_calls_add_up_and_the_memory_is_that_of_the_later_one() {
        let of = |all| Use {
            all,
            most: all,
            limit: 100,
        };
        let usage = |n| Usage {
            fuel: of(n),
            host_calls: of(n),
            memory_bytes: of(n),
            table_elements: of(n),
            host_call_bytes: of(n),
            handles: of(n),
        };
        let both = usage(30).and(usage(20));
        assert_eq!((both.fuel.all, both.fuel.most), (50, 30));
        assert_eq!((both.memory_bytes.all, both.memory_bytes.most), (20, 30));
        assert_eq!((both.handles.all, both.handles.most), (20, 30));
        assert_eq!(both.host_call_bytes.all, 50);
        assert_eq!(both.fuel.limit, 100);
    }
}
