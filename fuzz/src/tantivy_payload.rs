//! The payload of a commit: any text is refused, or is a payload that reads the same once it was written again.

use syncline::connectors::tantivy::fuzz::Payload;

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(payload) = Payload::parse(text) {
        assert_eq!(Payload::parse(&payload.to_text()), Some(payload));
    }
}
