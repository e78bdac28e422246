//! The document of a trigger.

use serde_json::{Map, Value, json};

use crate::limits;
use crate::problem::{Problem, codes};
use crate::schedule::{Schedule, ScheduleError};

/// A trigger, as its document says.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// Its id within the namespace.
    pub id: String,
    /// Name of the workflow that it starts.
    pub workflow: String,
    /// Version of the workflow; none: the newest at the moment of each start.
    pub version: Option<u32>,
    /// What starts it.
    pub kind: Kind,
}

/// What starts executions.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A schedule.
    Cron(Box<Cron>),
    /// Records of a topic.
    Kafka(Kafka),
}

/// A trigger by time.
#[derive(Clone, Debug, PartialEq)]
pub struct Cron {
    /// When.
    pub schedule: Schedule,
    /// Input of each execution; none: an object that names the trigger and the slot.
    pub input: Option<Value>,
    /// What becomes of missed slots.
    pub catch_up: CatchUp,
}

/// What becomes of slots that were missed because no trigger service ran, or nothing could be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// Nothing.
    None,
    /// The newest is made up for, unless a slot that is not missed has come meanwhile.
    #[default]
    Last,
    /// All are made up for, in order; at most the newest [`limits::MAX_MISSED`].
    All,
}

/// A trigger by records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Topic whose partitions are all read.
    pub topic: String,
    /// Where it begins when it has no position yet.
    pub from: From,
    /// What the input of an execution is.
    pub input: RecordInput,
}

/// Where a trigger by records begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the first record that there is.
    Earliest,
    /// Behind the last record that there is when the trigger is first seen.
    #[default]
    Latest,
}

/// What of a record becomes the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordInput {
    /// Its value, which must be JSON.
    #[default]
    Value,
    /// An object of all that the record has.
    Record,
}

fn read(document: &[u8]) -> Result<Value, Vec<Problem>> {
    let unreadable = |message: String| vec![Problem { path: String::new(), code: codes::UNREADABLE, message }];
    if document.len() > limits::MAX_DOCUMENT {
        let most = limits::MAX_DOCUMENT;
        return Err(unreadable(format!("the document has {} bytes, at most {most} are read", document.len())));
    }
    serde_json::from_slice(document).map_err(|error| unreadable(format!("not JSON: {error}")))
}

const SHARED: [&str; 5] = ["id", "workflow", "version", "type", "input"];

impl TriggerSpec {
    /// Reads a document.
    ///
    /// # Errors
    /// With all its problems at once, by their paths; at most [`limits::MAX_PROBLEMS`].
    pub fn parse(document: &[u8]) -> Result<Self, Vec<Problem>> {
        Self::from_value(&read(document)?)
    }

    /// Reads a document as the catalogue has it, beside the trigger's id and workflow. It may leave these two out; it must
    /// not contradict them.
    ///
    /// # Errors
    /// As [`TriggerSpec::parse`].
    pub fn parse_stored(id: &str, workflow: &str, document: &[u8]) -> Result<Self, Vec<Problem>> {
        let mut value: Value = read(document)?;
        if let Value::Object(fields) = &mut value {
            fields.entry("id").or_insert_with(|| json!(id));
            fields.entry("workflow").or_insert_with(|| json!(workflow));
        }
        let spec = Self::from_value(&value)?;
        let pairs = [("id", spec.id.as_str(), id), ("workflow", spec.workflow.as_str(), workflow)];
        let differ = pairs.into_iter().filter(|(_, says, is)| says != is).map(|(name, _, is)| Problem {
            path: format!("/{name}"),
            code: codes::BAD_VALUE,
            message: format!("{name} differs from {is:?}, under which the trigger is stored"),
        });
        let differ: Vec<Problem> = differ.collect();
        if differ.is_empty() { Ok(spec) } else { Err(differ) }
    }

    /// Reads a document that is JSON already.
    ///
    /// # Errors
    /// As [`TriggerSpec::parse`].
    pub fn from_value(value: &Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { problems: Vec::new() };
        let spec = match value {
            Value::Object(fields) => reader.trigger(fields),
            other => {
                reader.tell("", codes::WRONG_TYPE, format!("a trigger is an object, not {}", kind_name(other)));
                None
            }
        };
        match spec.filter(|_| reader.problems.is_empty()) {
            Some(spec) => Ok(spec),
            None => {
                reader.problems.sort();
                reader.problems.truncate(limits::MAX_PROBLEMS);
                Err(reader.problems)
            }
        }
    }

    /// The document with all its defaults and sorted keys; reads as the same trigger.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("id".into(), json!(self.id));
        fields.insert("workflow".into(), json!(self.workflow));
        if let Some(version) = self.version {
            fields.insert("version".into(), json!(version));
        }
        match &self.kind {
            Kind::Cron(cron) => {
                fields.insert("type".into(), json!("cron"));
                fields.insert("schedule".into(), json!(cron.schedule.pattern()));
                fields.insert("timezone".into(), json!(cron.schedule.timezone()));
                let catch_up = match cron.catch_up {
                    CatchUp::None => "none",
                    CatchUp::Last => "last",
                    CatchUp::All => "all",
                };
                fields.insert("catchUp".into(), json!(catch_up));
                if let Some(input) = &cron.input {
                    fields.insert("input".into(), input.clone());
                }
            }
            Kind::Kafka(kafka) => {
                fields.insert("type".into(), json!("kafka"));
                fields.insert("topic".into(), json!(kafka.topic));
                let from = match kafka.from {
                    From::Earliest => "earliest",
                    From::Latest => "latest",
                };
                fields.insert("from".into(), json!(from));
                let input = match kafka.input {
                    RecordInput::Value => "value",
                    RecordInput::Record => "record",
                };
                fields.insert("input".into(), json!(input));
            }
        }
        Value::Object(fields)
    }

    /// `cron` or `kafka`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Cron(_) => "cron",
            Kind::Kafka(_) => "kafka",
        }
    }
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn tell(&mut self, path: &str, code: &'static str, message: String) {
        // Sorted and cut later; a hostile document must not make a list without end.
        if self.problems.len() < limits::MAX_PROBLEMS * 4 {
            self.problems.push(Problem { path: path.to_owned(), code, message });
        }
    }

    /// None when something is wrong; what, has been told.
    fn trigger(&mut self, fields: &Map<String, Value>) -> Option<TriggerSpec> {
        let id = self.text(fields, "id").filter(|id| self.check_id(id));
        let workflow = self.text(fields, "workflow").filter(|name| self.check_workflow(name));
        let version = self.version(fields);
        let kind = match self.text(fields, "type").as_deref() {
            Some("cron") => {
                self.only(fields, "cron", &["schedule", "timezone", "catchUp"]);
                self.cron(fields)
            }
            Some("kafka") => {
                self.only(fields, "kafka", &["topic", "from"]);
                self.kafka(fields)
            }
            Some(other) => {
                let message = format!("no trigger has the type {:?}; there are cron and kafka", shorten(other));
                self.tell("/type", codes::UNKNOWN_TYPE, message);
                None
            }
            None => None,
        };
        Some(TriggerSpec { id: id?, workflow: workflow?, version: version?, kind: kind? })
    }

    fn only(&mut self, fields: &Map<String, Value>, kind: &str, own: &[&str]) {
        for name in fields.keys() {
            if !SHARED.contains(&name.as_str()) && !own.contains(&name.as_str()) {
                let path = format!("/{}", shorten(name).replace('~', "~0").replace('/', "~1"));
                let known = [&SHARED, own].concat().join(", ");
                self.tell(&path, codes::UNKNOWN_FIELD, format!("a {kind} trigger has {known}"));
            }
        }
    }

    /// The text of a field that must be there.
    fn text(&mut self, fields: &Map<String, Value>, name: &'static str) -> Option<String> {
        if fields.contains_key(name) {
            return self.optional_text(fields, name).flatten();
        }
        self.tell(&format!("/{name}"), codes::MISSING, format!("{name} is missing"));
        None
    }

    /// The text of a field, if it is there; none when it is of another type.
    #[allow(clippy::option_option)]
    fn optional_text(&mut self, fields: &Map<String, Value>, name: &'static str) -> Option<Option<String>> {
        match fields.get(name) {
            None => Some(None),
            Some(Value::String(text)) => Some(Some(text.clone())),
            Some(other) => {
                let message = format!("{name} must be text, not {}", kind_name(other));
                self.tell(&format!("/{name}"), codes::WRONG_TYPE, message);
                None
            }
        }
    }

    fn check_id(&mut self, id: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = (1..=limits::MAX_ID).contains(&id.len()) && id.chars().all(plain);
        if !good {
            let message = format!("id must be 1 to {} letters, digits, - _ or .", limits::MAX_ID);
            self.tell("/id", codes::BAD_VALUE, message);
        }
        good
    }

    fn check_workflow(&mut self, name: &str) -> bool {
        let good = (1..=limits::MAX_WORKFLOW).contains(&name.len());
        if !good {
            let message = format!("workflow must be 1 to {} bytes", limits::MAX_WORKFLOW);
            self.tell("/workflow", codes::BAD_VALUE, message);
        }
        good
    }

    #[allow(clippy::option_option)]
    fn version(&mut self, fields: &Map<String, Value>) -> Option<Option<u32>> {
        let Some(value) = fields.get("version") else { return Some(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        if number.is_none() {
            let (code, message) = match value {
                Value::Number(_) => (codes::BAD_VALUE, "version must be a whole number from 1".to_owned()),
                other => (codes::WRONG_TYPE, format!("version must be a number, not {}", kind_name(other))),
            };
            self.tell("/version", code, message);
        }
        number.map(Some)
    }

    fn cron(&mut self, fields: &Map<String, Value>) -> Option<Kind> {
        let pattern = self.text(fields, "schedule");
        let timezone = self.optional_text(fields, "timezone").map(|zone| zone.unwrap_or_else(|| "UTC".to_owned()));
        // With a zone that is wrong the schedule can still be checked, and the other way round.
        let schedule = pattern.and_then(|pattern| {
            let zone = timezone.as_deref().unwrap_or("UTC");
            let made = Schedule::new(&pattern, zone);
            if let Err(error) = &made {
                self.tell_schedule(error);
                if matches!(error, ScheduleError::UnknownTimezone(_))
                    && let Err(error) = Schedule::new(&pattern, "UTC")
                {
                    self.tell_schedule(&error);
                }
            }
            made.ok()
        });
        let catch_up =
            self.word(fields, "catchUp", &[("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)]);
        let input = fields.get("input").cloned();
        let size = input.as_ref().map_or(0, |input| input.to_string().len());
        if size > nova_engine::payload::MAX_INLINE_BYTES {
            let most = nova_engine::payload::MAX_INLINE_BYTES;
            self.tell("/input", codes::INPUT_TOO_LARGE, format!("input has {size} bytes, at most {most} are allowed"));
        }
        timezone?;
        Some(Kind::Cron(Box::new(Cron { schedule: schedule?, input, catch_up: catch_up? })))
    }

    fn tell_schedule(&mut self, error: &ScheduleError) {
        let (path, code) = match error {
            ScheduleError::BadPattern(_) => ("/schedule", codes::BAD_SCHEDULE),
            ScheduleError::NeverDue => ("/schedule", codes::NEVER_DUE),
            ScheduleError::UnknownTimezone(_) => ("/timezone", codes::UNKNOWN_TIMEZONE),
        };
        self.tell(path, code, error.to_string());
    }

    fn kafka(&mut self, fields: &Map<String, Value>) -> Option<Kind> {
        let topic = self.text(fields, "topic").filter(|topic| self.check_topic(topic));
        let from = self.word(fields, "from", &[("earliest", From::Earliest), ("latest", From::Latest)]);
        let forms = [("value", RecordInput::Value), ("record", RecordInput::Record)];
        let input = self.word(fields, "input", &forms);
        Some(Kind::Kafka(Kafka { topic: topic?, from: from?, input: input? }))
    }

    fn check_topic(&mut self, topic: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good =
            (1..=limits::MAX_TOPIC).contains(&topic.len()) && topic.chars().all(plain) && !matches!(topic, "." | "..");
        if !good {
            let message = format!("topic must be 1 to {} letters, digits, - _ or .", limits::MAX_TOPIC);
            self.tell("/topic", codes::BAD_VALUE, message);
            return false;
        }
        // A trigger on the cluster's own topics would start executions about executions, without end.
        if topic.starts_with("nova.") {
            self.tell("/topic", codes::RESERVED_TOPIC, "topics that begin with nova. belong to the cluster".into());
            return false;
        }
        true
    }

    /// One of a few words; the default when it is not there.
    fn word<T: Copy + Default>(
        &mut self,
        fields: &Map<String, Value>,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let Some(text) = self.optional_text(fields, name)? else { return Some(T::default()) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("{name} must be one of {}", all.join(", "));
            self.tell(&format!("/{name}"), codes::BAD_VALUE, message);
        }
        found
    }
}

fn kind_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}
