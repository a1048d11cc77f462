//! Events held against their schemas.

use std::collections::BTreeMap;

use catchment_cells::limits::NAME_BYTES_MAX;
use catchment_config::{Field, Kind, NEW_FIELD, NEW_TYPE, Schema};

use crate::event::{Member, Members};
use crate::reason::Reason;

/// Bytes of a type's name in the report of a field.
const TYPE_BYTES: usize = 24;

/// The schemas of a client, by event type.
#[derive(Debug)]
pub(crate) struct Schemas(BTreeMap<String, Schema>);

impl Schemas {
    pub(crate) fn new(events: BTreeMap<String, Schema>) -> Self {
        Schemas(events)
    }

    /// The first way in which an event breaks its schema; what no schema knows comes last. `report` hears all of that, as the reason of a
    /// counter.
    pub(crate) fn breach(
        &self,
        event_type: &str,
        members: &Members<'_>,
        mut report: impl FnMut(String),
    ) -> Option<Reason> {
        let Some(schema) = self.0.get(event_type) else {
            report(named(NEW_TYPE, event_type));
            return Some(Reason::SchemaUnknownType);
        };
        let mut breach = schema.fields.iter().find_map(|(name, field)| breach_of(field, members.get(name)));
        for member in members.foreign().filter(|member| !schema.fields.contains_key(member.name())) {
            let event_type = &event_type[..event_type.floor_char_boundary(TYPE_BYTES)];
            report(named(NEW_FIELD, &format!("{event_type}.{}", member.name())));
            breach.get_or_insert(Reason::SchemaUnknownField);
        }
        breach
    }
}

fn breach_of(field: &Field, member: Option<&Member<'_>>) -> Option<Reason> {
    let Some(member) = member else { return field.required.then_some(Reason::SchemaMissingField) };
    let fits = match field.kind {
        Kind::Any => true,
        Kind::String => member.is_text(),
        Kind::Number => member.is_number(),
        Kind::Boolean => member.is_boolean(),
    };
    if !fits {
        return Some(Reason::SchemaWrongType);
    }
    let values = field.values.as_ref()?;
    let is_in = member.text().is_some_and(|text| values.contains(text));
    (!is_in).then_some(Reason::SchemaNotInEnum)
}

/// A reason, as far as one may be long.
fn named(kind: &str, name: &str) -> String {
    let mut reason = format!("{kind}{}", name.replace('\0', ""));
    reason.truncate(reason.floor_char_boundary(NAME_BYTES_MAX));
    reason
}
