//! Command lines from templates. A word may hold placeholders, `{name}`; a group of words of which some placeholder
//! has no value is left out, so that what an instance does not have (IPv6, a disk) needs no template of its own.

use std::collections::BTreeMap;

/// A word of a template.
pub(in crate::driver) type Word = &'static str;

/// Names that are placeholders. Other braces are the word's own.
const NAMES: [&str; 19] = [
    "accel",
    "arguments",
    "config",
    "disk",
    "drives_json",
    "guest",
    "guest_json",
    "gw",
    "gw6",
    "image",
    "ip",
    "ip6",
    "mac",
    "mask",
    "memory",
    "prefix",
    "prefix6",
    "tap",
    "tap_fd",
];

/// What placeholders stand for.
#[derive(Debug, Clone, Default)]
pub(in crate::driver) struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Gives `name` a value.
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.0.insert(name, value.to_string());
    }

    /// Gives `name` a value where there is one.
    pub fn set_some(&mut self, name: &'static str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// The words of a template, in order.
    pub fn expand(&self, groups: &[&[Word]]) -> Vec<String> {
        let expanded = groups.iter().filter_map(|group| group.iter().map(|word| self.fill(word)).collect());
        expanded.flat_map(|words: Vec<String>| words).collect()
    }

    /// A text with its placeholders filled in; `None` where one has no value.
    pub fn fill(&self, text: &str) -> Option<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            filled.push_str(before);
            match placeholder(from) {
                Some(name) => {
                    filled.push_str(self.0.get(name)?);
                    rest = &from[name.len() + 2..];
                }
                None => {
                    filled.push('{');
                    rest = &from[1..];
                }
            }
        }
        filled.push_str(rest);
        Some(filled)
    }
}

/// The name in the braces that `text` begins with, if it is a placeholder.
fn placeholder(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    NAMES.contains(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_a_value_are_left_out() {
        let mut values = Values::default();
        values.set("ip", "10.0.0.2");
        values.set_some("gw", None::<String>);
        let words = values.expand(&[&["-a", "ip={ip}"], &["-b", "{gw}"], &["{\"x\":{\"ip\":\"{ip}\"}}"]]);
        assert_eq!(words, ["-a", "ip=10.0.0.2", "{\"x\":{\"ip\":\"10.0.0.2\"}}"]);
        assert_eq!(values.fill("{nothing} {ip"), Some("{nothing} {ip".to_owned()));
    }
}
