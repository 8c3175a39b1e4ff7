//! The bearer token.

use std::fmt;
use std::hint::black_box;

/// Shorter tokens can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// The secret that the API asks for; never shown.
#[derive(Clone)]
pub struct Token(Option<Vec<u8>>);

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short.
    #[error("the admin token has {0} bytes, at least {TOKEN_BYTES_MIN} are needed")]
    Short(usize),
    /// Not a header value.
    #[error("the admin token may hold visible ASCII only")]
    Bytes,
}

impl Token {
    /// From the content of a token file: blanks around it do not count.
    ///
    /// # Errors
    /// When it is too short, or can't be sent in a header.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() < TOKEN_BYTES_MIN {
            return Err(TokenError::Short(text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Bytes);
        }
        Ok(Self(Some(text.as_bytes().to_vec())))
    }

    /// Nothing matches it: the guarded part of the API is closed.
    #[must_use]
    pub const fn closed() -> Self {
        Self(None)
    }

    /// Whether `given` is the token. Takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        let Some(token) = &self.0 else { return false };
        let mut differ = token.len() ^ given.len();
        for (at, mine) in token.iter().enumerate() {
            differ |= usize::from(mine ^ black_box(given.get(at).copied().unwrap_or(0)));
        }
        black_box(differ) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
            assert!(!token.matches(other.as_bytes()), "{other}");
        }
        assert!(!Token::closed().matches(b""));
        assert!(Token::new("short").is_err());
        assert!(Token::new("with a blank inside").is_err());
    }
}
