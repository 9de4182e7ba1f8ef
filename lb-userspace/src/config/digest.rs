//! Canonical form and digest: how a configuration is named and compared.
//!
//! The canonical form is one line of JSON: lists sorted by name, addresses in the text form of
//! RFC 5952, durations in milliseconds, defaults of optional keys left out. The digest is SHA-256
//! of its bytes (FIPS 180-4), so `sha256sum` of the stored form must print the same.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::Config;

/// Version of the canonical form; part of the form itself.
const FORM: u32 = 1;

/// SHA-256 of a canonical form. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: give the 64 hexadecimal digits that `lbguard plan` prints")]
pub struct DigestError(String);

/// The text is not a canonical form that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON, or not the shape of the form.
    #[error("canonical form unreadable: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a later version.
    #[error("canonical form has format {0}, this version reads {FORM}: use the newer lbguard")]
    Format(u32),
}

#[derive(Serialize)]
struct FormRef<'a> {
    format: u32,
    #[serde(flatten)]
    config: &'a Config,
}

#[derive(Deserialize)]
struct FormHead {
    format: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(rename = "format")]
    _format: u32,
    vips: Vec<super::Vip>,
    pools: Vec<super::Pool>,
}

impl Digest {
    /// SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 digits: enough to tell digests apart on screen, never to compare by.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl Config {
    /// The canonical form: equal for equal configurations, one line, no trailing newline.
    pub fn canonical_json(&self) -> String {
        let mut config = Cow::Borrowed(self);
        if !config.is_sorted() {
            config.to_mut().sort();
        }
        // Cannot fail: every key is a string and no value has a fallible serializer. Should it
        // ever, the empty text reads as no configuration at all.
        serde_json::to_string(&FormRef {
            format: FORM,
            config: &config,
        })
        .unwrap_or_default()
    }

    /// Reads back what [`Config::canonical_json`] wrote, for generations kept on disk. It is not
    /// checked again: the rules of today need not hold for what was committed earlier.
    pub fn from_canonical_json(text: &str) -> Result<Self, CanonicalError> {
        let head: FormHead = serde_json::from_str(text)?;
        if head.format != FORM {
            return Err(CanonicalError::Format(head.format));
        }
        let form: Form = serde_json::from_str(text)?;
        let mut config = Self {
            vips: form.vips,
            pools: form.pools,
        };
        config.sort();
        Ok(config)
    }

    /// SHA-256 of the canonical form.
    pub fn digest(&self) -> Digest {
        Digest::of(self.canonical_json().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.chars().take(80).collect());
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            let &[high, low] = pair else {
                return Err(wrong());
            };
            let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                return Err(wrong());
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
