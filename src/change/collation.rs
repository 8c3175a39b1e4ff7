//! Which printable ASCII texts a collation holds equal, as measured on the servers
//! (`tests/collations.rs`, TRAPS 20).
//!
//! Most collations that end in `_ci` fold the 26 letters and nothing else. Some do not:
//! in Turkish `i` and `I` are two letters, in Danish `aA` is not `aa`, in Czech and
//! Hungarian `cH` and `dZS` are not the one letter that `ch` and `dzs` are, in Latin
//! `i` is `j`, in Lithuanian `i` is `y`. What is not known by name here is not guessed at.

/// How the texts of a column compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    /// All by their bytes.
    Bytes,
    /// Printable ASCII by its bytes; others by weight.
    Ascii,
    /// Printable ASCII by its letters regardless of case; others by weight.
    AsciiFolded,
    /// Only the server can tell.
    Unknown,
}

/// Character sets without languages of their own: `…_general_ci` and the like.
const PLAIN: &[&str] = &[
    "general",
    "bulgarian",
    "english",
    "general_mysql500",
    "german1",
    "german2",
    "japanese",
    "korean",
    "polish",
    "spanish",
    "swedish",
    "thai",
    "tolower",
    "unicode",
    "unicode_520",
];

/// Languages that leave the 26 letters alone, as Unicode's tables tailor them.
const LANGUAGES: &[&str] = &[
    "esperanto",
    "estonian",
    "german2",
    "icelandic",
    "latvian",
    "persian",
    "polish",
    "romanian",
    "sinhala",
    "slovenian",
    "spanish",
    "swedish",
    "vietnamese",
];

/// The same by the names that MySQL 8.0 gives them.
const CODES: &[&str] =
    &["cs", "de_pb", "eo", "es", "et", "is", "pl", "ro", "ru", "sk", "sl", "sv", "vi"];

/// Languages of MySQL 8.0 that make other letters of the 26, but tell all texts apart
/// where accents and case count.
const CASED: &[&str] = &["da", "es_trad", "hr", "hu", "ja", "la", "lt", "lv", "tr"];

/// Whether accents and case count, at the end of a name.
const FORMS: &[&str] = &["ai_ci", "as_ci", "ai_cs", "as_cs"];

/// Character sets whose `general` or `swedish` folds more or less than letters.
const ODD: &[&str] = &["cp866", "geostd8", "koi8u", "latin7", "macce", "swe7"];

impl Equality {
    /// By the collation's name, `utf8mb4_general_ci` or the like; nothing is one of bytes.
    #[must_use]
    pub fn of<'a>(collation: &'a str) -> Self {
        let bytes = |name: &str| name.is_empty() || name == "binary" || name.ends_with("_bin");
        if bytes(collation) {
            return Self::Bytes;
        }
        let Some((charset, name)) = collation.split_once('_') else { return Self::Unknown };
        // How trailing blanks count is another matter.
        let padded = |name: &'a str| name.strip_suffix("_nopad").unwrap_or(name);
        let language = |name: &'a str| if name == "nopad" { "" } else { padded(name) };
        if let Some(name) = name.strip_prefix("uca1400_") {
            let form = FORMS.iter().find_map(|form| Some((name.strip_suffix(form)?, *form)));
            let Some((base, form)) = form else { return Self::Unknown };
            let language = language(base.trim_end_matches('_'));
            let known = language.is_empty() || LANGUAGES.contains(&language);
            return Self::by_case(form, known, known);
        }
        if let Some((code, rest)) = name.split_once("0900_") {
            let code = code.trim_end_matches('_');
            // The Japanese one tells the two scripts of its syllables apart.
            let rest = rest.trim_end_matches("_ks");
            let folds = code.is_empty() || CODES.contains(&code);
            return Self::by_case(rest, folds, folds || CASED.contains(&code));
        }
        let tailored = charset.starts_with("utf") || charset == "ucs2";
        match (name.strip_suffix("_ci").map(padded), name) {
            (Some(base), _) if PLAIN.contains(&base) && !ODD.contains(&charset) => {
                Self::AsciiFolded
            }
            (Some("hungarian" | "myanmar"), _) if tailored => Self::AsciiFolded,
            (Some(base), _) if tailored && LANGUAGES.contains(&base) => Self::AsciiFolded,
            (None, "general_cs") => Self::Ascii,
            _ => Self::Unknown,
        }
    }

    /// Of `ai_ci`, `as_ci`, `ai_cs` or `as_cs`, where the letters without case, or all
    /// letters, are told apart as in English.
    fn by_case(name: &str, folds: bool, tells: bool) -> Self {
        match name {
            "ai_ci" | "as_ci" if folds => Self::AsciiFolded,
            "ai_cs" if folds => Self::Ascii,
            "as_cs" if tells => Self::Ascii,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: Equality, collations: &[&str]) {
        for collation in collations {
            assert_eq!(Equality::of(collation), wanted, "{collation}");
        }
    }

    #[test]
    fn a_collation_is_known_by_its_name_or_not_at_all() {
        check(
            Equality::Bytes,
            &["", "binary", "utf8mb4_bin", "utf8mb4_0900_bin", "latin1_nopad_bin"],
        );
        check(
            Equality::AsciiFolded,
            &[
                "utf8mb4_general_ci",
                "utf8mb3_unicode_520_nopad_ci",
                "utf8mb4_0900_ai_ci",
                "utf8mb4_sv_0900_ai_ci",
                "utf8mb4_uca1400_ai_ci",
                "utf8mb4_uca1400_nopad_as_ci",
                "utf8mb4_uca1400_polish_nopad_ai_ci",
                "utf8_hungarian_ci",
                "latin1_swedish_ci",
            ],
        );
        check(
            Equality::Ascii,
            &[
                "utf8mb4_0900_as_cs",
                "utf8mb4_tr_0900_as_cs",
                "utf8mb4_ja_0900_as_cs_ks",
                "latin1_general_cs",
            ],
        );
        check(
            Equality::Unknown,
            &[
                "utf8mb4_turkish_ci",
                "utf8mb4_danish_ci",
                "utf8mb4_tr_0900_ai_ci",
                "utf8mb4_hu_0900_ai_ci",
                "utf8mb4_uca1400_danish_ai_ci",
                "utf8mb4_uca1400_roman_ai_cs",
                "latin1_danish_ci",
                "cp866_general_ci",
                "gbk_chinese_ci",
                "utf8mb4_xx_0900_as_cs",
                "utf8mb4_uca1400_",
                "utf8mb4_uca1400_ééé",
                "utf8mb4_uca1400_ci",
                "utf8mb4_0900_é",
                "nonsense",
            ],
        );
    }
}
