//! A hash that is the same in every build of the program and on every machine.

/// FNV-1a of 64 bits. The standard library's hasher promises no stable result, and nobody attacks this one.
pub(super) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// Each with its length before it, and the end of the list marked, so that no two lists run into the same bytes.
    pub(super) fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            self.number(text.len());
            self.bytes(text.as_bytes());
        }
        self.number(usize::MAX);
    }

    /// Its hexadecimal digits.
    pub(super) fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }
}
