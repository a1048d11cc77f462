//! All that stands in an event, by name: for clients whose config asks for more than the fields that every event may have.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Field, Scalar, Text};

/// The members of an event and of its properties, without those that are absent.
#[derive(Debug, Default)]
pub(crate) struct Members<'a>(Vec<Member<'a>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    name: Cow<'a, str>,
    value: Scalar<'a>,
    /// As a text; `None`: it can't be one.
    text: Option<Cow<'a, str>>,
    is_property: bool,
}

impl<'a> Members<'a> {
    /// Reads one JSON object, which an event was read from already; of anything else there are none.
    pub(crate) fn read(json: &'a str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// The member of a name, in any spelling that the name has; the event's own goes before its properties, the last before others.
    pub(crate) fn get(&self, name: &str) -> Option<&Member<'a>> {
        let field = Field::of(name);
        let is_of = |member: &&Member<'_>| match field {
            Some(_) => Field::of(&member.name) == field,
            None => member.name == name,
        };
        let last = |is_property| self.0.iter().rev().filter(is_of).find(|member| member.is_property == is_property);
        last(false).or_else(|| last(true))
    }

    /// The text of the member of a name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.text()
    }

    /// Members that aren't among the fields that every event may have.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Member<'a>> {
        self.0.iter().filter(|member| Field::of(&member.name).is_none())
    }

    fn push(&mut self, name: Cow<'a, str>, value: Scalar<'a>, is_property: bool) {
        if !value.is_absent() {
            let text = value.clone().into_text();
            self.0.push(Member { name, value, text, is_property });
        }
    }
}

impl Member<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As a text, if it can be one.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value, Scalar::Text(_))
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self.value, Scalar::Number(_) | Scalar::Integer(_))
    }

    pub(crate) fn is_boolean(&self) -> bool {
        matches!(self.value, Scalar::Bool(_))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::default();
        deserializer.deserialize_any(Object { members: &mut members, is_property: false })?;
        Ok(members)
    }
}

/// Reads an object's members; anything else has none.
struct Object<'m, 'de> {
    members: &'m mut Members<'de>,
    is_property: bool,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event or its properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            if !self.is_property && (name == "properties" || name == "metadata") {
                map.next_value_seed(Object { members: self.members, is_property: true })?;
            } else {
                self.members.push(name, map.next_value()?, self.is_property);
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<Scalar<'de>>()?.is_some() {}
        Ok(())
    }
}
