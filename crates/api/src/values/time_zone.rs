//! Time zones by their IANA names.

use std::fmt;
use std::str::FromStr;

use jiff::tz;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A time zone such as `Europe/Berlin` or `UTC`. Its rules come from the system, or else from the copy in the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeZone {
    name: String,
    rules: tz::TimeZone,
}

/// Why a text is no [`TimeZone`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone: expected an IANA name, such as Europe/Berlin or UTC")]
pub struct TimeZoneError(String);

impl TimeZone {
    /// Coordinated Universal Time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rules: tz::TimeZone::UTC }
    }

    /// Its rules.
    pub fn rules(&self) -> &tz::TimeZone {
        &self.rules
    }
}

impl FromStr for TimeZone {
    type Err = TimeZoneError;

    fn from_str(name: &str) -> Result<Self, TimeZoneError> {
        // Names are looked up as files: nothing may lead out of the database.
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-".contains(c))
            && !name.starts_with('/');
        let rules = if is_name { tz::TimeZone::get(name).ok() } else { None };
        let rules = rules.ok_or_else(|| TimeZoneError(name.to_owned()))?;
        Ok(Self { name: rules.iana_name().unwrap_or(name).to_owned(), rules })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for TimeZone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for TimeZone {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeZone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "holdfast-time-zone", "minLength": 1})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_printed_as_iana_writes_them() {
        for (text, printed) in
            [("Europe/Berlin", "Europe/Berlin"), ("america/new_york", "America/New_York"), ("UTC", "UTC")]
        {
            assert_eq!(text.parse::<TimeZone>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "Berlin", "CEST+1", "../../etc/passwd", "/etc/localtime", "Europe/Berlin ", "Europe/../UTC", "é"]
        {
            assert_eq!(text.parse::<TimeZone>(), Err(TimeZoneError(text.to_owned())), "{text}");
        }
    }
}
