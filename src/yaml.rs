//! Settings in YAML: every problem of a file in one run, each at its line and column.
//!
//! [`read`] makes a tree of the text, holds it against the JSON Schema of the type it
//! is read as (the only list of fields, types and words there is), and mends what is
//! wrong with a stand-in, so that the rest can be read and judged all the same. The
//! place of a stand-in is [`Place::told`]: what is said of it later is dropped.
//! Pure: the text comes in as an argument.

mod de;
mod mend;
mod tree;
mod units;

pub use units::{ByteSize, Span};

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line; 0 for a stand-in.
    pub line: u64,
    /// The column, in characters; 0 for a stand-in.
    pub column: u64,
}

impl Place {
    /// Whether a stand-in is here: what is wrong with the value was told.
    #[must_use]
    pub const fn told(self) -> bool {
        self.line == 0
    }
}

/// A value with the place where it stands.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Place,
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; 0 when unknown.
    pub line: u64,
    /// From 1; 0 when unknown.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// The way out, when there is one to name.
    pub help: Option<String>,
}

impl Problem {
    fn new(at: Place, message: impl Into<String>, help: Option<String>) -> Self {
        Self { line: at.line, column: at.column, message: message.into(), help }
    }

    /// The problem with its place in `file`, the line itself and a mark below it.
    #[must_use]
    pub fn render(&self, file: &str, text: &str) -> String {
        let mut out = format!("error: {}\n  --> {file}", self.message);
        if self.line > 0 {
            out += &format!(":{}:{}", self.line, self.column);
            let at = usize::try_from(self.line - 1).unwrap_or(usize::MAX);
            if let Some(line) = text.lines().nth(at) {
                let gutter = " ".repeat(self.line.to_string().len());
                let before = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
                let indent = " ".repeat(before.min(line.len()));
                out += &format!("\n{gutter} |\n{} | {line}\n{gutter} | {indent}^", self.line);
            }
        }
        if let Some(help) = &self.help {
            out += &format!("\n  = help: {help}");
        }
        out
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// The problems of one file.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one, unless what stands there was told already.
    pub fn add(&mut self, at: Place, message: impl Into<String>, help: Option<String>) {
        if !at.told() {
            self.0.push(Problem::new(at, message, help));
        }
    }

    /// The value, if there is no problem.
    ///
    /// # Errors
    /// All problems in the order of the file.
    pub fn none_or<T>(mut self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|problem| (problem.line, problem.column));
        Err(self.0)
    }
}

/// Reads a text as a `T`, and says what is wrong with it; stand-ins are in the place
/// of values that can't be read. `T` must be read with `deny_unknown_fields`, as its
/// schema says.
///
/// # Errors
/// The one problem that lets nothing be read: a syntax error, or a file that is no
/// list of fields at all.
pub fn read<T: JsonSchema + DeserializeOwned>(text: &str) -> Result<(T, Problems), Problem> {
    let mut problems = Problems::default();
    let mut node = tree::parse(text, &mut problems)?;
    mend::mend(&mut node, &schemars::schema_for!(T), &mut problems)?;
    match T::deserialize(&node) {
        Ok(value) => Ok((value, problems)),
        // The schema promised more than the type takes.
        Err(error) => Err(problems.0.into_iter().next().unwrap_or(error.problem())),
    }
}

/// A guess at what was meant by a name that is not one of the known ones.
#[must_use]
pub fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(wrong, known).map(|name| format!("did you mean `{name}`?"))
}

/// The same, or all that are known where none is near: `regions are eu, us`.
#[must_use]
pub fn which<'a>(wrong: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    did_you_mean(wrong, known.clone()).unwrap_or_else(|| {
        let names: Vec<_> = known.collect();
        if names.is_empty() {
            return format!("there are no {what}");
        }
        format!("{what} are {}", names.join(", "))
    })
}

fn closest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
