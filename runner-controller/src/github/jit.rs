//! The check of a JIT config before a container gets it.
//!
//! A JIT config is `base64(JSON: file name → base64(file))`, and its file `.runner` names the runner.
//! It is decoded in memory only, because another file in it is the runner's private key.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// The content of a JIT config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A config for the runner with this name.
    Names(String),
    /// The documented shape, without a name.
    Nameless,
    /// Another shape. GitHub does not document the shape, so such a config is not refused.
    Opaque,
}

#[derive(Deserialize)]
struct Files {
    #[serde(rename = ".runner")]
    runner: String,
}

#[derive(Deserialize)]
struct RunnerFile {
    #[serde(rename = "AgentName", alias = "agentName", default)]
    agent_name: Option<String>,
}

/// Reads the name of the runner that a config is for.
pub(super) fn read(encoded: &str) -> Content {
    let Some(runner) = decode(encoded)
        .and_then(|outer| serde_json::from_slice::<Files>(without_bom(&outer)).ok())
        .and_then(|files| decode(&files.runner))
        .and_then(|inner| serde_json::from_slice::<RunnerFile>(without_bom(&inner)).ok())
    else {
        return Content::Opaque;
    };
    runner.agent_name.map_or(Content::Nameless, Content::Names)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, lenient)
        .decode(text.trim())
        .ok()
}

/// Removes the byte order mark that .NET writes and accepts.
fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn blob(runner: &str) -> String {
        let files = serde_json::json!({
            ".runner": BASE64_STANDARD.encode(runner),
            ".credentials": BASE64_STANDARD.encode("{}"),
        });
        BASE64_STANDARD.encode(files.to_string())
    }

    #[test]
    fn the_name_is_found_with_and_without_a_bom() {
        let runner = r#"{"AgentId":"7","AgentName":"h-ci-1-0000beef","Ephemeral":"True"}"#;
        let name = Content::Names("h-ci-1-0000beef".into());
        assert_eq!(read(&blob(runner)), name);
        assert_eq!(read(&blob(&format!("\u{feff}{runner}"))), name);
        assert_eq!(read(blob(runner).trim_end_matches('=')), name);
        assert_eq!(read(&blob("{}")), Content::Nameless);
    }

    #[test]
    fn other_shapes_are_opaque() {
        for other in [
            String::new(),
            "not base64!".into(),
            BASE64_STANDARD.encode("not JSON"),
            BASE64_STANDARD.encode(r#"{".runner":"not base64!"}"#),
            BASE64_STANDARD.encode(r#"{".credentials":""}"#),
            blob("not JSON"),
        ] {
            assert_eq!(read(&other), Content::Opaque, "{other}");
        }
    }
}
