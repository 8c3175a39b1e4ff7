//! Reads the secrets that the settings name.

use anyhow::Context as _;

use crate::conf::Secret;

/// The first line of the file, or the environment variable.
pub(crate) fn read(secret: &Secret) -> anyhow::Result<String> {
    match secret {
        Secret::File(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("can't read the secret in {}", path.display()))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        }
        Secret::Env(name) => std::env::var(name)
            .with_context(|| format!("can't read the secret in the environment variable {name}")),
    }
}
