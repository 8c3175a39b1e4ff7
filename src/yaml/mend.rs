//! Holds a tree against a JSON Schema: what does not fit is told, and a stand-in takes
//! its place.

use schemars::Schema;
use serde_json::{Map, Value};

use super::tree::{Key, Kind, Node};
use super::{ByteSize, Place, Problem, Problems, Span, closest};

/// What a schema asks for, as far as the types of this program need it.
enum Shape<'s> {
    /// Fields with names of their own.
    Fields {
        known: &'s Map<String, Value>,
        required: Vec<&'s str>,
    },
    /// Any names, values of one shape.
    Entries(&'s Value),
    List(&'s Value),
    /// One of these words.
    Words(Vec<&'s str>),
    /// One of several sets of fields, told apart by a name.
    OneOf(&'s [Value]),
    /// Text with a form of its own: what it is called, an example, and how it is read.
    Form {
        title: &'s str,
        example: &'s str,
        help: Option<&'s str>,
        fits: fn(&str) -> bool,
    },
    Text,
    Number {
        low: i128,
        high: i128,
    },
    Boolean,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

fn fits<T: std::str::FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

/// Whether the tree is a map, so that there is something to mend, and mends it.
pub(super) fn mend(
    root: &mut Node,
    schema: &Schema,
    problems: &mut Problems,
) -> Result<(), Problem> {
    if !matches!(root.kind, Kind::Map(_)) {
        let message = format!("expected fields, found {}", root.shown());
        return Err(Problem::new(root.at, message, Some("write `name: value`".to_owned())));
    }
    let schema = schema.as_value();
    Mender { defs: &schema["$defs"], problems }.value(root, schema, "the file");
    Ok(())
}

struct Mender<'s, 'p> {
    defs: &'s Value,
    problems: &'p mut Problems,
}

impl<'s> Mender<'s, '_> {
    fn shape(&self, schema: &'s Value) -> Shape<'s> {
        if let Some(name) = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/$defs/")) {
            return self.shape(&self.defs[name]);
        }
        // `Option`: the other of the two.
        if let Some(some) = list(&schema["anyOf"]).iter().find(|s| s["type"] != "null") {
            return self.shape(some);
        }
        let variants = list(&schema["oneOf"]);
        let words = variants.iter().map(|variant| &variant["const"]).chain(list(&schema["enum"]));
        let words: Vec<_> = words.filter_map(Value::as_str).collect();
        if !words.is_empty() {
            return Shape::Words(words);
        }
        if !variants.is_empty() {
            return Shape::OneOf(variants);
        }
        let types = list(&schema["type"]);
        let of = types.iter().find(|name| *name != "null").unwrap_or(&schema["type"]);
        match of.as_str().unwrap_or_default() {
            "object" => match schema["properties"].as_object() {
                Some(known) => {
                    let required = list(&schema["required"]);
                    let required = required.iter().filter_map(Value::as_str).collect();
                    Shape::Fields { known, required }
                }
                None => Shape::Entries(&schema["additionalProperties"]),
            },
            "array" => Shape::List(&schema["items"]),
            "integer" => {
                let highest = match schema["format"].as_str() {
                    Some("uint32") => u32::MAX.into(),
                    _ => u64::MAX.into(),
                };
                Shape::Number {
                    low: number(&schema["minimum"]).unwrap_or(0),
                    high: number(&schema["maximum"]).unwrap_or(highest),
                }
            }
            "boolean" => Shape::Boolean,
            _ => match schema["title"].as_str() {
                Some(title @ "duration") => Shape::form(title, schema, fits::<Span>),
                Some(title @ "size") => Shape::form(title, schema, fits::<ByteSize>),
                _ => Shape::Text,
            },
        }
    }

    fn value(&mut self, node: &mut Node, schema: &'s Value, name: &str) {
        let shape = self.shape(schema);
        match (&shape, &mut node.kind) {
            (Shape::Fields { known, required }, Kind::Map(fields)) => {
                self.fields(node.at, fields, known, required, name);
            }
            (Shape::Entries(of), Kind::Map(fields)) => {
                for (key, value) in fields {
                    self.value(value, of, &key.name);
                }
            }
            (Shape::List(of), Kind::List(items)) => {
                items.iter_mut().for_each(|item| self.value(item, of, name));
            }
            (Shape::OneOf(variants), Kind::Map(_)) => self.variant(node, variants, name),
            (Shape::Words(words), Kind::Scalar { text, .. }) => {
                if !words.contains(&text.as_str()) {
                    let help = closest(text, words.iter().copied());
                    let help = help.map_or_else(
                        || format!("it is one of {}", words.join(", ")),
                        |word| format!("did you mean `{word}`?"),
                    );
                    self.problems.add(node.at, format!("unknown {name} `{text}`"), Some(help));
                    *node = self.stand_in(schema);
                }
            }
            (Shape::Form { fits, .. }, Kind::Scalar { text, .. }) if fits(text) => {}
            (Shape::Text, Kind::Scalar { .. }) => {}
            (Shape::Boolean, Kind::Scalar { text, plain: true })
                if matches!(text.as_str(), "true" | "false") => {}
            (Shape::Number { low, high }, Kind::Scalar { text, plain: true }) => {
                match text.parse::<i128>() {
                    Ok(value) if (*low..=*high).contains(&value) => {}
                    Ok(value) => {
                        let message = format!("{name} {value} is out of range");
                        self.problems.add(node.at, message, Some(format!("{low} to {high}")));
                        *node = self.stand_in(schema);
                    }
                    Err(_) => self.misfit(node, schema, &shape, name),
                }
            }
            _ => self.misfit(node, schema, &shape, name),
        }
    }

    /// The value is of another type.
    fn misfit(&mut self, node: &mut Node, schema: &'s Value, shape: &Shape<'s>, name: &str) {
        let (wanted, help) = match shape {
            Shape::Fields { known, .. } => {
                ("fields".to_owned(), Some(format!("they are {}", names(known.keys()))))
            }
            Shape::Entries(_) => ("names with values".to_owned(), None),
            Shape::List(_) => {
                let help = node.plain().map(|text| format!("write `[{text}]`"));
                ("a list".to_owned(), help)
            }
            Shape::Words(words) => (format!("one of {}", words.join(", ")), None),
            Shape::OneOf(variants) => {
                let forms: Vec<_> =
                    variant_names(variants).map(|name| format!("`{name}: …`")).collect();
                (forms.join(" or "), None)
            }
            Shape::Form { title, example, help, .. } => {
                (format!("a {title} such as {example}"), help.map(str::to_owned))
            }
            Shape::Text => ("text".to_owned(), None),
            Shape::Number { .. } => ("a whole number".to_owned(), None),
            Shape::Boolean => ("true or false".to_owned(), None),
        };
        let message = format!("{name}: expected {wanted}, found {}", node.shown());
        self.problems.add(node.at, message, help);
        *node = self.stand_in(schema);
    }

    fn fields(
        &mut self,
        at: Place,
        fields: &mut Vec<(Key, Node)>,
        known: &'s Map<String, Value>,
        required: &[&'s str],
        name: &str,
    ) {
        let mut meant = Vec::new();
        fields.retain(|(key, _)| {
            let fits = known.contains_key(&key.name);
            if !fits {
                let guess = closest(&key.name, known.keys().map(String::as_str));
                let help = match guess {
                    Some(guess) => format!("did you mean `{guess}`?"),
                    None => format!("fields of {name} are {}", names(known.keys())),
                };
                meant.extend(guess);
                self.problems.add(key.at, format!("unknown field `{}`", key.name), Some(help));
            }
            fits
        });
        // A field with nothing behind it is as good as absent.
        fields.retain(|(key, node)| {
            required.contains(&key.name.as_str()) || !matches!(node.kind, Kind::Null)
        });
        for (key, node) in fields.iter_mut() {
            self.value(node, &known[&key.name], &key.name);
        }
        for lacking in required {
            if fields.iter().any(|(key, _)| key.name == *lacking) {
                continue;
            }
            if !meant.contains(lacking) {
                let help = known[*lacking]["description"].as_str().map(str::to_owned);
                self.problems.add(at, format!("{name} lacks the field `{lacking}`"), help);
            }
            let key = Key { at: Place::default(), name: (*lacking).to_owned() };
            fields.push((key, self.stand_in(&known[*lacking])));
        }
    }

    /// The variant that has one of the fields.
    fn variant(&mut self, node: &mut Node, variants: &'s [Value], name: &str) {
        let Kind::Map(fields) = &node.kind else { return };
        let has = |variant: &&Value| {
            fields.iter().any(|(key, _)| variant["properties"].get(&key.name).is_some())
        };
        if let Some(variant) = variants.iter().find(has) {
            return self.value(node, variant, name);
        }
        let known: Vec<_> = variant_names(variants).collect();
        let help = format!("fields of {name} are {}", known.join(", "));
        if fields.is_empty() {
            self.problems.add(node.at, format!("{name} has no field"), Some(help.clone()));
        }
        for (key, _) in fields {
            let guess = closest(&key.name, known.iter().copied());
            let help = guess.map_or(help.clone(), |guess| format!("did you mean `{guess}`?"));
            self.problems.add(key.at, format!("unknown field `{}`", key.name), Some(help));
        }
        *node = self.stand_in(&variants[0]);
    }

    /// A value that can be read, at no place.
    fn stand_in(&self, schema: &'s Value) -> Node {
        let text = |text: &str| Kind::Scalar { text: text.to_owned(), plain: true };
        let kind = match self.shape(schema) {
            Shape::Fields { known, required } => {
                let fields = required.iter().map(|name| {
                    let key = Key { at: Place::default(), name: (*name).to_owned() };
                    (key, self.stand_in(&known[*name]))
                });
                Kind::Map(fields.collect())
            }
            Shape::Entries(_) => Kind::Map(Vec::new()),
            Shape::List(_) => Kind::List(Vec::new()),
            Shape::Words(words) => text(words[0]),
            Shape::OneOf(variants) => return self.stand_in(&variants[0]),
            Shape::Form { example, .. } => text(example),
            Shape::Text => text(""),
            Shape::Number { .. } => text("0"),
            Shape::Boolean => text("false"),
        };
        Node { at: Place::default(), kind }
    }
}

impl<'s> Shape<'s> {
    fn form(title: &'s str, schema: &'s Value, fits: fn(&str) -> bool) -> Self {
        let example = schema["examples"][0].as_str().unwrap_or_default();
        Self::Form { title, example, help: schema["description"].as_str(), fits }
    }
}

impl Node {
    /// The text of a scalar without quotes.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Some(text),
            Kind::Scalar { .. } | Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    fn shown(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, plain: true } => format!("`{text}`"),
            Kind::Scalar { text, .. } => format!("the text `{text}`"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "fields".to_owned(),
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn variant_names(variants: &[Value]) -> impl Iterator<Item = &str> {
    variants.iter().filter_map(|variant| variant["required"][0].as_str())
}
