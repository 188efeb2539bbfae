//! Names of images, as far as every technology shares them.

/// The registry that an image's name begins with, and the rest. As engines tell it: what stands before the first slash
/// is a registry only where it is `localhost` or has a dot or a port, so `library/nginx` has none.
#[must_use]
pub fn split_registry(image: &str) -> (Option<&str>, &str) {
    match image.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), rest),
        _ => (None, image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_a_repository() {
        for (image, registry) in [
            ("nginx", None),
            ("nginx:1.28", None),
            ("library/nginx:1.28", None),
            ("sha256:00ff", None),
            ("localhost/nginx", Some("localhost")),
            ("127.0.0.1:5000/nginx:1", Some("127.0.0.1:5000")),
            ("docker.io/library/nginx@sha256:00ff", Some("docker.io")),
        ] {
            assert_eq!(split_registry(image).0, registry, "{image}");
        }
    }
}
