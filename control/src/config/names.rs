//! Domain names: their form, and which of them lies in which zone.

use toml::de::DeValue;

use super::errors::Complaint;
use super::values::text;

/// Longest name in wire form, with length bytes and root (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;

/// A fully qualified name: lower case, with the final dot, which may be left out in the file.
pub(super) fn domain_name(value: &DeValue<'_>) -> Result<String, Complaint> {
    let given = text(value)?;
    let mut name = given.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    check(&name).map_err(|(what, fix)| Complaint::new(format!("{given:?} {what}"), fix))?;
    Ok(name)
}

/// The owner of a record in the zone `apex`: `@` for the apex, a name below it (`www`), or a whole one, which may
/// leave out the final dot where it ends in the apex. The first label may be `*`.
pub(super) fn owner_name(value: &DeValue<'_>, apex: &str) -> Result<String, Complaint> {
    let given = text(value)?;
    let lower = given.to_ascii_lowercase();
    let name = match lower.as_str() {
        "@" => apex.to_owned(),
        whole if whole.ends_with('.') => whole.to_owned(),
        open if lies_in(&format!("{open}."), apex) => format!("{open}."),
        below => format!("{below}.{apex}"),
    };
    check(name.strip_prefix("*.").unwrap_or(&name))
        .map_err(|(what, fix)| Complaint::new(format!("{given:?} {what}"), fix))?;
    if name.len() + 1 > LONGEST_NAME {
        return Err(Complaint::new(format!("{given:?} takes {} bytes", name.len() + 1), "keep it within 255 bytes"));
    }
    if !lies_in(&name, apex) {
        let fix = format!("use a name below {apex}, or leave out the final dot");
        return Err(Complaint::new(format!("{given:?} lies outside the zone"), fix));
    }
    Ok(name)
}

/// The mailbox of a zone as a name; `hostmaster@edge.example` is a common slip.
pub(super) fn mailbox(value: &DeValue<'_>) -> Result<String, Complaint> {
    let given = text(value)?;
    if given.contains('@') {
        let fix = format!("write it with a dot: {:?}", given.replacen('@', ".", 1));
        return Err(Complaint::new(format!("{given:?} is not a domain name"), fix));
    }
    domain_name(value)
}

fn check(name: &str) -> Result<(), (String, &'static str)> {
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.is_empty() {
        return Err(("names the root".to_owned(), "use a name with at least one label, as in \"edge.example.\""));
    }
    for label in labels.split('.') {
        if label.is_empty() {
            return Err(("has an empty label".to_owned(), "put exactly one dot between labels"));
        }
        if label.len() > LONGEST_LABEL {
            let what = format!("has a label of {} bytes", label.len());
            return Err((what, "keep each label within 63 bytes"));
        }
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if let Some(bad) = label.chars().find(|c| !legal(*c)) {
            let what = format!("holds {bad:?}");
            return Err((what, "use letters, digits, '-' and '_' (other scripts in their xn-- form)"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err((format!("has the label {label:?}"), "do not begin or end a label with '-'"));
        }
    }
    // Each dot stands for the length byte of the next label; the first one and the root are added.
    let wire = name.len() + 1;
    if wire > LONGEST_NAME {
        return Err((
            format!("takes {wire} bytes"),
            "keep the whole name within 255 bytes, a byte for each dot included",
        ));
    }
    Ok(())
}

/// True where `name` is `apex` or below it; both lower case with the final dot.
#[must_use]
pub fn lies_in(name: &str, apex: &str) -> bool {
    name.strip_suffix(apex).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn read(name: &str) -> Result<String, Complaint> {
        domain_name(&DeValue::String(name.to_owned().into()))
    }

    #[test]
    fn case_and_final_dot_are_made_the_same() {
        assert_eq!(read("Video.EDGE.example").unwrap(), "video.edge.example.");
        assert_eq!(read("_a.b-c.1.").unwrap(), "_a.b-c.1.");
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in ["", ".", "..", "a..b", ".a", "a b", "a/b", "-a.b", "a-.b", "ä.example", "a\\.b", "*.a"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn owners_are_read_in_their_zone() {
        let read = |name: &str| owner_name(&DeValue::String(name.to_owned().into()), "edge.example.");
        for (given, name) in [
            ("@", "edge.example."),
            ("WWW", "www.edge.example."),
            ("a.b", "a.b.edge.example."),
            ("www.edge.example", "www.edge.example."),
            ("www.edge.example.", "www.edge.example."),
            ("edge.example", "edge.example."),
            ("*", "*.edge.example."),
            ("*.a", "*.a.edge.example."),
            ("_sip._udp", "_sip._udp.edge.example."),
        ] {
            assert_eq!(read(given).unwrap(), name);
        }
        for bad in ["", ".", "www.example.", "a.*", "a*", "**", "a..b", &"a.".repeat(125)] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_wire() {
        assert!(read(&"a".repeat(63)).is_ok());
        assert!(read(&"a".repeat(64)).is_err());
        // 3 labels of 63 and one of 61: 4 length bytes, 250 bytes of text, the root.
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert!(read(&longest).is_ok());
        assert!(read(&format!("{longest}d")).is_err());
    }

    #[test]
    fn a_zone_holds_whole_labels_only() {
        assert!(lies_in("a.edge.example.", "edge.example."));
        assert!(lies_in("edge.example.", "edge.example."));
        assert!(!lies_in("aedge.example.", "edge.example."));
        assert!(!lies_in("example.", "edge.example."));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_well_formed(name in "\\PC{0,80}") {
            if let Ok(name) = read(&name) {
                prop_assert!(name.ends_with('.') && name.len() <= 254);
                prop_assert!(name.trim_end_matches('.').split('.').all(|l| (1..=63).contains(&l.len())));
                prop_assert_eq!(&read(&name).unwrap(), &name);
            }
        }
    }
}
