//! What the tracer and a guard say to each other, one word or two in a message.

use std::fmt;
use std::str::FromStr;

/// What a guard is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Set a watchpoint at this address.
    Watch(u64),
    /// Take it away.
    Unwatch(u64),
    /// Take all away, and end.
    Release,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All threads report to it; it could or could not leave the tracer's control group.
    Ready {
        /// It could not.
        is_confined: bool,
    },
    /// Why they do not.
    Refused(String),
    /// As ordered.
    Done,
    /// A thread has no debug register left.
    NoSlot,
    /// It would need more descriptors than it may have.
    NoDescriptors {
        /// So many for all watchpoints.
        needed: u64,
        /// So many it may have.
        limit: u64,
    },
    /// The kernel's reason not to do it.
    Failed(i32),
    /// Signals kept from the process: the last answer.
    Kept(u64),
}

/// What was said is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misunderstood;

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watch(address) => write!(formatter, "watch {address}"),
            Self::Unwatch(address) => write!(formatter, "unwatch {address}"),
            Self::Release => formatter.write_str("release"),
        }
    }
}

impl FromStr for Order {
    type Err = Misunderstood;

    fn from_str(text: &str) -> Result<Self, Misunderstood> {
        let (word, rest) = split(text);
        match word {
            "watch" => Ok(Self::Watch(number(rest)?)),
            "unwatch" => Ok(Self::Unwatch(number(rest)?)),
            "release" => Ok(Self::Release),
            _ => Err(Misunderstood),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { is_confined } => formatter.write_str(if *is_confined { "ready confined" } else { "ready" }),
            Self::Refused(reason) => write!(formatter, "refused {reason}"),
            Self::Done => formatter.write_str("done"),
            Self::NoSlot => formatter.write_str("no-slot"),
            Self::NoDescriptors { needed, limit } => write!(formatter, "no-descriptors {needed} {limit}"),
            Self::Failed(errno) => write!(formatter, "failed {errno}"),
            Self::Kept(signals) => write!(formatter, "kept {signals}"),
        }
    }
}

impl FromStr for Answer {
    type Err = Misunderstood;

    fn from_str(text: &str) -> Result<Self, Misunderstood> {
        let (word, rest) = split(text);
        match word {
            "ready" => Ok(Self::Ready { is_confined: rest == "confined" }),
            "refused" => Ok(Self::Refused(rest.to_owned())),
            "done" => Ok(Self::Done),
            "no-slot" => Ok(Self::NoSlot),
            "no-descriptors" => {
                let (needed, limit) = split(rest);
                Ok(Self::NoDescriptors { needed: number(needed)?, limit: number(limit)? })
            }
            "failed" => Ok(Self::Failed(number(rest)?)),
            "kept" => Ok(Self::Kept(number(rest)?)),
            _ => Err(Misunderstood),
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

fn number<Number: FromStr>(text: &str) -> Result<Number, Misunderstood> {
    text.parse().map_err(|_| Misunderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        for order in [Order::Watch(u64::MAX), Order::Unwatch(8), Order::Release] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        let answers = [
            Answer::Ready { is_confined: false },
            Answer::Ready { is_confined: true },
            Answer::Refused("gdb traces it".into()),
            Answer::Done,
            Answer::NoSlot,
            Answer::NoDescriptors { needed: 1_216, limit: 1_024 },
            Answer::Failed(16),
            Answer::Kept(7),
        ];
        for answer in answers {
            assert_eq!(answer.to_string().parse(), Ok(answer));
        }
        assert_eq!("".parse::<Answer>(), Err(Misunderstood));
        assert_eq!("watch".parse::<Order>(), Err(Misunderstood));
    }
}
