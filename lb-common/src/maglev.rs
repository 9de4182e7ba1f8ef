//! Weighted Maglev: fills the lookup table of a pool.
//!
//! After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4: each backend walks its own permutation of the table's positions and takes the first
//! free one each time it has a turn. The paper leaves weights open. Here they work like this:
//!
//! * **How many entries** a backend gets is settled first: its share of the table, rounded by the
//!   largest-remainder method. So every count is within one entry of the exact share, for any
//!   weights; taking turns alone lets the error of a thousand small backends pile up on a large one.
//! * **When** it has its turns depends on its own weight only: turn k comes at time (k + 1) / weight,
//!   ties by key. So when a backend goes or changes its weight, the order among all others stays,
//!   and with it nearly all of what they hold.
//!
//! The result depends on names, weights, table size and seed, not on the order of the input nor on
//! the machine: balancers behind ECMP must agree. **Nothing here may ever change its output**; the
//! golden test at the end keeps it. The hash is private for that reason.

/// Smallest table: a few entries a backend for a handful of them.
pub const MIN_TABLE: u32 = 251;
/// Largest table: 2 MB.
pub const MAX_TABLE: u32 = 1_000_003;

/// One backend that wants a share of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// What its name hashes to: [`name_key`].
    pub key: u64,
    /// Relative share; 0 gets no entry.
    pub weight: u32,
    /// What is written to the table; at least 1, as 0 means "no backend" there.
    pub number: u16,
}

/// Working memory for one backend. Its content means nothing between calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    key: u64,
    /// Fraction of an entry that rounding down took away, times the sum of weights.
    remainder: u64,
    weight: u32,
    /// Entries that it gets in all, and has so far.
    quota: u32,
    taken: u32,
    /// Next position of its permutation, and the step to the one after.
    position: u32,
    step: u32,
    number: u16,
}

/// Why a table cannot be filled. The table's content is then undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaglevError {
    /// The table's length is not a prime from [`MIN_TABLE`] to [`MAX_TABLE`].
    TableSize,
    /// The scratch slice is shorter than the list of backends.
    Scratch,
    /// No backend has a weight above 0.
    NoWeight,
    /// A backend has number 0.
    NumberZero,
    /// Two backends have one key: the same name twice.
    SameKey,
}

impl core::fmt::Display for MaglevError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::TableSize => "lookup table size is not a prime from 251 to 1000003",
            Self::Scratch => "scratch memory is shorter than the list of backends",
            Self::NoWeight => "no backend has a weight above 0",
            Self::NumberZero => "backend number 0 is reserved",
            Self::SameKey => "two backends have the same name",
        })
    }
}

impl core::error::Error for MaglevError {}

/// The key of a backend: its name, hashed under the seed that the fleet shares.
pub const fn name_key(seed: u64, name: &[u8]) -> u64 {
    let mut state = mix(seed ^ 0x6c62_6775_6172_6401);
    let mut rest = name;
    while let Some((byte, tail)) = rest.split_first() {
        state = mix(state ^ (*byte as u64 + 1));
        rest = tail;
    }
    // The length closes the name, so that no name is the beginning of another's hash.
    mix(state ^ ((name.len() as u64) << 32))
}

/// Fills the table: each entry becomes the `number` of a backend. Takes O(M log M) steps for M
/// entries: measured 5 ms for 65,537 and 100 backends, 10 ms with 4000.
pub fn fill(
    table: &mut [u16],
    backends: &[Weighted],
    scratch: &mut [Turn],
) -> Result<(), MaglevError> {
    let size = checked_size(table.len())?;
    let turns = prepare(size, backends, scratch)?;
    settle_quotas(size, turns)?;
    table.fill(0);
    take_turns(table, size, turns);
    Ok(())
}

/// Whether a table may have that many entries.
pub const fn is_table_size(size: u32) -> bool {
    size >= MIN_TABLE && size <= MAX_TABLE && is_prime(size)
}

/// Trial division; enough for what [`MAX_TABLE`] allows.
pub const fn is_prime(n: u32) -> bool {
    if n < 4 {
        return n >= 2;
    }
    let mut divisor = 2;
    while divisor <= n / divisor {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    true
}

fn checked_size(len: usize) -> Result<u32, MaglevError> {
    match u32::try_from(len) {
        Ok(size) if is_table_size(size) => Ok(size),
        _ => Err(MaglevError::TableSize),
    }
}

/// Copies the backends that have weight into the scratch memory, and finds names that are there
/// twice, wherever in the list.
fn prepare<'s>(
    size: u32,
    backends: &[Weighted],
    scratch: &'s mut [Turn],
) -> Result<&'s mut [Turn], MaglevError> {
    let mut count: usize = 0;
    for backend in backends.iter().filter(|b| b.weight > 0) {
        if backend.number == 0 {
            return Err(MaglevError::NumberZero);
        }
        *scratch.get_mut(count).ok_or(MaglevError::Scratch)? = Turn::new(size, backend);
        count = count.saturating_add(1);
    }
    let turns = scratch.get_mut(..count).ok_or(MaglevError::Scratch)?;
    turns.sort_unstable_by_key(|turn| turn.key);
    if turns
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.key == b.key))
    {
        return Err(MaglevError::SameKey);
    }
    Ok(turns)
}

/// Largest remainder: everyone gets the whole part of his share, the left-over entries go to the
/// largest fractions.
fn settle_quotas(size: u32, turns: &mut [Turn]) -> Result<(), MaglevError> {
    // At most 2^32 backends of weight below 2^32: no sum or product here exceeds 64 bits.
    let sum: u64 = turns.iter().map(|turn| u64::from(turn.weight)).sum();
    let mut left = u64::from(size);
    for turn in &mut *turns {
        let share = u64::from(size).saturating_mul(u64::from(turn.weight));
        let whole = share.checked_div(sum).ok_or(MaglevError::NoWeight)?;
        turn.remainder = share.checked_rem(sum).ok_or(MaglevError::NoWeight)?;
        turn.quota = u32::try_from(whole).map_err(|_| MaglevError::TableSize)?;
        left = left.saturating_sub(whole);
    }
    if turns.is_empty() {
        return Err(MaglevError::NoWeight);
    }
    turns.sort_unstable_by(|a, b| b.remainder.cmp(&a.remainder).then(a.key.cmp(&b.key)));
    let left = usize::try_from(left).map_err(|_| MaglevError::TableSize)?;
    for turn in turns.iter_mut().take(left) {
        turn.quota = turn.quota.saturating_add(1);
    }
    Ok(())
}

/// Lets the backends take entries until all quotas are used up, which is when the table is full.
fn take_turns(table: &mut [u16], size: u32, turns: &mut [Turn]) {
    let equal = turns
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.weight == b.weight));
    if equal {
        take_rounds(table, size, turns);
    } else {
        take_by_time(table, size, turns);
    }
}

/// Turns of backends of one weight: turn k of all of them is at the same time, so in the order of their
/// keys. As [`take_by_time`] does it, in a third of the time.
fn take_rounds(table: &mut [u16], size: u32, turns: &mut [Turn]) {
    turns.sort_unstable_by_key(|turn| turn.key);
    let rounds = turns.iter().map(|turn| turn.quota).max().unwrap_or(0);
    for _ in 0..rounds {
        for turn in turns.iter_mut().filter(|turn| turn.taken < turn.quota) {
            turn.take(table, size);
        }
    }
}

fn take_by_time(table: &mut [u16], size: u32, turns: &mut [Turn]) {
    let mut heap = Heap::new(turns);
    while let Some(turn) = heap.first() {
        if turn.taken < turn.quota {
            turn.take(table, size);
            heap.reorder_first();
        } else {
            heap.drop_first();
        }
    }
}

impl Turn {
    fn new(size: u32, backend: &Weighted) -> Self {
        let offset = mix(backend.key ^ 0x006f_6666_7365_7401);
        let step = mix(backend.key ^ 0x0000_7374_6570_0001);
        Self {
            key: backend.key,
            weight: backend.weight,
            number: backend.number,
            position: below(offset, size),
            step: below(step, size.saturating_sub(1)).saturating_add(1),
            ..Self::default()
        }
    }

    /// Takes the first free position of its permutation. The size is prime, so `size` steps visit
    /// every position, and the quotas sum up to the size, so there is a free one.
    fn take(&mut self, table: &mut [u16], size: u32) {
        for _ in 0..size {
            let here = self.position as usize;
            let next = self.position.wrapping_add(self.step);
            self.position = if next >= size {
                next.wrapping_sub(size)
            } else {
                next
            };
            if let Some(entry) = table.get_mut(here)
                && *entry == 0
            {
                *entry = self.number;
                break;
            }
        }
        self.taken = self.taken.saturating_add(1);
    }

    /// Whether its next turn comes before the other's: (taken + 1) / weight, compared as fractions
    /// (20 + 32 bits at most), then the key.
    fn before(&self, other: &Self) -> bool {
        let time = |a: &Self, b: &Self| {
            u64::from(a.taken)
                .saturating_add(1)
                .saturating_mul(u64::from(b.weight))
        };
        (time(self, other), self.key) < (time(other, self), other.key)
    }
}

/// Binary min-heap in place, by [`Turn::before`].
struct Heap<'s> {
    turns: &'s mut [Turn],
}

impl<'s> Heap<'s> {
    fn new(turns: &'s mut [Turn]) -> Self {
        let mut heap = Self { turns };
        for index in (0..heap.turns.len() / 2).rev() {
            heap.sift_down(index);
        }
        heap
    }

    fn first(&mut self) -> Option<&mut Turn> {
        self.turns.first_mut()
    }

    fn reorder_first(&mut self) {
        self.sift_down(0);
    }

    fn drop_first(&mut self) {
        let turns = core::mem::take(&mut self.turns);
        if let Some((last, rest)) = turns.split_last_mut() {
            if let Some(first) = rest.first_mut() {
                *first = *last;
            }
            self.turns = rest;
            self.sift_down(0);
        }
    }

    fn sift_down(&mut self, start: usize) {
        let mut parent = start;
        loop {
            let left = parent.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let child = if self.is_before(right, left) {
                right
            } else {
                left
            };
            if !self.is_before(child, parent) {
                return;
            }
            self.turns.swap(child, parent);
            parent = child;
        }
    }

    /// False when either index is beyond the end.
    fn is_before(&self, a: usize, b: usize) -> bool {
        match (self.turns.get(a), self.turns.get(b)) {
            (Some(a), Some(b)) => a.before(b),
            _ => false,
        }
    }
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): a bijection of 64 bits.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Maps a hash to 0..n; 0 when n is 0. The bias is below n / 2^64.
fn below(hash: u64, n: u32) -> u32 {
    let rest = hash.checked_rem(u64::from(n)).unwrap_or(0);
    u32::try_from(rest).unwrap_or(0)
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
