//! How much the programs say of what they meet, which changes while they run.

use crate::labelled::labelled;

labelled! {
    /// What is said.
    #[derive(PartialOrd, Ord)]
    pub enum LogLevel {
        /// Nothing.
        Off = "off",
        /// Tables that are broken.
        Error = "error",
        /// Answers for which a frame had no room, too; where nobody has chosen.
        Warn = "warn",
        /// Each frame that is dropped, too.
        Debug = "debug",
    }
}

impl LogLevel {
    /// As it stands in the root.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self as u64 + 1
    }

    /// Back again; 0: nobody has chosen.
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        match word {
            1 => Self::Off,
            2 => Self::Error,
            4 => Self::Debug,
            _ => Self::Warn,
        }
    }

    /// Whether a word of the root has this level said.
    #[inline(always)]
    #[must_use]
    pub const fn is_said(self, word: u64) -> bool {
        if word == 0 { self as u64 <= Self::Warn as u64 } else { (self as u64) < word }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_said_from_its_own_word_on() {
        for set in LogLevel::ALL.iter().copied() {
            assert_eq!(LogLevel::of_word(set.to_word()), set);
            for level in LogLevel::ALL.iter().copied() {
                assert_eq!(level.is_said(set.to_word()), level <= set, "{level:?} at {set:?}");
            }
        }
        assert_eq!(LogLevel::of_word(0), LogLevel::Warn);
        assert!(LogLevel::Warn.is_said(0) && !LogLevel::Debug.is_said(0));
    }
}
