//! From text to a tree of values with their places.

use std::collections::BTreeMap;

use serde_yaml::granit_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::{Place, Problem, Problems};

/// Values in one file, those that aliases repeat counted each time: settings have a
/// few hundred, and a few aliases of aliases could ask for billions.
const NODES_MAX: usize = 100_000;
/// Values within values: settings have six levels, and the tree is walked by calls.
const DEPTH_MAX: usize = 64;

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// A plain scalar may be a number or a boolean, a quoted one is text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file, each key once.
    Map(Vec<(Key, Node)>),
}

/// A field's name.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

/// An anchored value, how deep and how large it is.
struct Anchored {
    node: Node,
    height: usize,
    nodes: usize,
}

struct Reader<'a, 'p> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Anchored>,
    /// The greatest depth reached since it was last set back.
    deepest: usize,
    nodes: usize,
    problems: &'p mut Problems,
}

/// Reads the one document of a text.
///
/// Keys that stand twice and tags are told; what can't be read any further is an
/// error.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Result<Node, Problem> {
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { parser, anchors: BTreeMap::new(), deepest: 0, nodes: 0, problems };
    let mut root = None;
    loop {
        let (event, at) = reader.next()?;
        if matches!(event, Event::StreamEnd) {
            return root.ok_or_else(|| Problem::new(START, "the file is empty", None));
        }
        if event.is_node() {
            if root.is_some() {
                let help = Some("leave out what follows `---`".to_owned());
                return Err(Problem::new(at, "a second document begins here", help));
            }
            root = Some(reader.node(event, at, 0)?);
        }
    }
}

const START: Place = Place { line: 1, column: 1 };

fn place(mark: &Marker) -> Place {
    let from = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Place { line: from(mark.line()).max(1), column: from(mark.col()) + 1 }
}

fn scalar(text: String, style: ScalarStyle) -> Kind {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Kind::Null;
    }
    Kind::Scalar { text, plain }
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<(Event<'a>, Place), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => {
                let info = error.info();
                let message = info.lines().next().unwrap_or("the YAML can't be read").to_owned();
                Err(Problem::new(place(error.marker()), message, None))
            }
            None => Ok((Event::StreamEnd, START)),
        }
    }

    /// The next event that is a value; `None` at the end of the list or map.
    fn item(&mut self) -> Result<Option<(Event<'a>, Place)>, Problem> {
        loop {
            let (event, at) = self.next()?;
            if event.is_node() {
                return Ok(Some((event, at)));
            }
            if matches!(event, Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd) {
                return Ok(None);
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Place, depth: usize) -> Result<Node, Problem> {
        self.count(at, depth, 1)?;
        if let Event::Alias(id) = event {
            return self.alias(id, at, depth);
        }
        if let Some(tag) = event.tag() {
            let help = "leave the tag out: the field says of what type its value is".to_owned();
            self.problems.add(at, format!("`{}` is a tag", tag.original()), Some(help));
        }
        let outer = std::mem::replace(&mut self.deepest, depth);
        let before = self.nodes;
        let (kind, anchor) = if let Event::Scalar(text, style, anchor, _) = event {
            (scalar(text.into_owned(), style), anchor)
        } else if let Event::SequenceStart(_, anchor, _) = event {
            let mut list = Vec::new();
            while let Some((event, at)) = self.item()? {
                list.push(self.node(event, at, depth + 1)?);
            }
            (Kind::List(list), anchor)
        } else if let Event::MappingStart(_, anchor, _) = event {
            (Kind::Map(self.map(depth)?), anchor)
        } else {
            return Err(Problem::new(at, "a value is expected here", None));
        };
        let node = Node { at, kind };
        if anchor > 0 {
            let nodes = self.nodes - before + 1;
            let height = self.deepest - depth;
            self.anchors.insert(anchor, Anchored { node: node.clone(), height, nodes });
        }
        self.deepest = self.deepest.max(outer);
        Ok(node)
    }

    fn count(&mut self, at: Place, depth: usize, nodes: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.deepest = self.deepest.max(depth);
        if self.nodes > NODES_MAX {
            return Err(Problem::new(at, format!("more than {NODES_MAX} values"), None));
        }
        if depth > DEPTH_MAX {
            return Err(Problem::new(at, format!("nested more than {DEPTH_MAX} deep"), None));
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, at: Place, depth: usize) -> Result<Node, Problem> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(Problem::new(at, "the alias stands within its own anchor", None));
        };
        let (height, nodes) = (anchored.height, anchored.nodes);
        self.count(at, depth + height, nodes)?;
        Ok(self.anchors[&id].node.clone())
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let mut fields: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        while let Some((event, at)) = self.item()? {
            let key = self.node(event, at, depth + 1)?;
            let Some((event, at)) = self.item()? else { break };
            let value = self.node(event, at, depth + 1)?;
            let Kind::Scalar { text, plain } = key.kind else {
                self.problems.add(key.at, "a field's name is expected here", None);
                continue;
            };
            if plain && text == "<<" {
                merged.push(value);
            } else if let Some((first, _)) = fields.iter().find(|(first, _)| first.name == text) {
                let help = format!("it stands in line {} already", first.at.line);
                self.problems.add(key.at, format!("`{text}` stands twice"), Some(help));
            } else {
                fields.push((Key { at: key.at, name: text }, value));
            }
        }
        for value in merged {
            self.merge(value, &mut fields);
        }
        Ok(fields)
    }

    /// `<<`: the fields of another map, or of a list of them, that are not set here.
    fn merge(&mut self, value: Node, fields: &mut Vec<(Key, Node)>) {
        match value.kind {
            Kind::Map(more) => {
                for (key, node) in more {
                    if fields.iter().all(|(held, _)| held.name != key.name) {
                        fields.push((key, node));
                    }
                }
            }
            Kind::List(maps) => maps.into_iter().for_each(|map| self.merge(map, fields)),
            Kind::Null | Kind::Scalar { .. } => {
                let help = Some("write `<<: *name`".to_owned());
                self.problems.add(value.at, "`<<` takes the fields of an anchor", help);
            }
        }
    }
}
