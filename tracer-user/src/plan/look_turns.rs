//! Whose turn it is to be looked at: looks share the time, and one that takes long leaves room for others.

/// Looks at one time.
const MOST_LOOKS: usize = 2;

/// Who is next.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookTurns {
    next: usize,
}

impl LookTurns {
    /// Whether another look may begin while so many are under way.
    #[must_use]
    pub fn is_any_free(self, under_way: usize) -> bool {
        under_way < MOST_LOOKS
    }

    /// The process at which a look is to begin, of those whose look `is_due`, in turns; `None` while `under_way` looks are
    /// enough.
    pub fn next(&mut self, under_way: usize, count: usize, is_due: impl Fn(usize) -> bool) -> Option<usize> {
        if !self.is_any_free(under_way) {
            return None;
        }
        let index = (0..count).map(|turn| (self.next + turn) % count).find(|index| is_due(*index))?;
        self.next = index + 1;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn() {
        let mut turns = LookTurns::default();
        let order: Vec<_> = (0..5).map(|_| turns.next(1, 3, |_| true)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1].map(Some));
        assert_eq!(turns.next(0, 3, |index| index == 1), Some(1));
        assert_eq!(turns.next(0, 3, |_| false), None);
        assert_eq!(turns.next(2, 3, |_| true), None, "enough are under way");
        assert_eq!(turns.next(0, 0, |_| true), None);
        assert_eq!(turns.next(0, 2, |_| true), Some(0), "some have ended");
    }
}
