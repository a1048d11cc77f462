//! Dashboards: named questions that are answered together.

use std::collections::BTreeMap;

use catchment_cells::limits::NAME_BYTES_MAX;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::DASHBOARD_QUESTIONS_MAX;
use crate::question::{Question, QuestionError};

/// What every client has, under these names, unless it has another of that name.
const BUILT_IN: [(&str, &str); 2] =
    [("homepage", include_str!("dashboard/homepage.json")), ("realtime", include_str!("dashboard/realtime.json"))];

/// Questions by their names: `{"questions":{"<name>":{"metric":…}}}`, each as one of a POST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    questions: BTreeMap<String, Value>,
}

impl Dashboard {
    /// Reads one whose questions can be asked.
    pub fn read(json: &[u8], now: i64, zone: &TimeZone) -> Result<Dashboard, QuestionError> {
        let wrong = |parameter: &str, problem: String| QuestionError { parameter: parameter.into(), problem };
        let dashboard: Dashboard =
            serde_json::from_slice(json).map_err(|error| wrong("questions", error.to_string()))?;
        let n = dashboard.questions.len();
        if !(1..=DASHBOARD_QUESTIONS_MAX).contains(&n) {
            return Err(wrong("questions", format!("there are 1 to {DASHBOARD_QUESTIONS_MAX} of them, not {n}")));
        }
        if dashboard.questions.keys().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(wrong("questions", format!("a question's name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        for (name, question) in dashboard.questions(now, zone) {
            question.map_err(|error| wrong(&error.parameter, format!("of the question {name}: {}", error.problem)))?;
        }
        Ok(dashboard)
    }

    /// One that every client has.
    pub fn built_in(id: &str) -> Option<Dashboard> {
        let (_, json) = BUILT_IN.iter().find(|(name, _)| *name == id)?;
        serde_json::from_str(json).ok()
    }

    /// The names of those that every client has.
    pub fn built_in_ids() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Its questions at `now`, in ms, by name.
    pub fn questions(
        &self,
        now: i64,
        zone: &TimeZone,
    ) -> impl Iterator<Item = (&str, Result<Question, QuestionError>)> {
        self.questions.iter().map(move |(name, json)| (name.as_str(), Question::from_json(json, now, zone)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planner::Plan;

    fn read(json: &str) -> Result<Dashboard, String> {
        Dashboard::read(json.as_bytes(), 0, &TimeZone::UTC).map_err(|error| error.to_string())
    }

    #[test]
    fn what_every_client_has_can_be_answered_from_what_every_client_has() {
        for id in Dashboard::built_in_ids() {
            let dashboard = Dashboard::built_in(id).unwrap();
            assert_eq!(read(&serde_json::to_string(&dashboard).unwrap()), Ok(dashboard.clone()));
            for (name, question) in dashboard.questions(0, &TimeZone::UTC) {
                let plan = Plan::new(question.unwrap(), &[], &TimeZone::UTC);
                assert!(plan.is_ok(), "{id}, {name}: {plan:?}");
            }
        }
        assert_eq!(Dashboard::built_in("other"), None);
    }

    #[test]
    fn what_is_wrong_with_one_is_named() {
        let many: Vec<String> =
            (0..=DASHBOARD_QUESTIONS_MAX).map(|n| format!("\"q{n}\":{{\"metric\":\"users\"}}")).collect();
        for (json, named) in [
            ("nonsense", "questions: expected"),
            ("{}", "missing field"),
            (r#"{"questions":{}}"#, "1 to 32 of them, not 0"),
            (&format!("{{\"questions\":{{{}}}}}", many.join(",")), "not 33"),
            (r#"{"questions":{"":{"metric":"users","last":"1d"}}}"#, "name has 1 to"),
            (r#"{"questions":{"a":7}}"#, "of the question a: a question is an object"),
            (
                r#"{"questions":{"a":{"metric":"nonsense","last":"1d"}}}"#,
                "metric: of the question a: there is no metric",
            ),
            (r#"{"questions":{"a":{"metric":"users","last":"1d"}},"colour":"red"}"#, "unknown field `colour`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
