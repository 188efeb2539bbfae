//! An enumeration whose list stands once: index in a map of counters, label and documentation come from it.

/// Makes the enumeration, with `ALL`, `label` and `meaning`.
macro_rules! labelled {
    (
        $(#[$attribute:meta])*
        pub enum $type:ident { $($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+ }
    ) => {
        $(#[$attribute])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[doc = $doc])+ $name,)+
        }

        impl $type {
            /// Every verdict, in map order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Short fixed name: metric label and JSON key.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}
pub(crate) use labelled;
