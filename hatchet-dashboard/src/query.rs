//! The filters of lists, as they are in a URL.

use hatchet_core::{Query, RunStatus};

use crate::{
    api::{Filter, Time},
    refusal::{Answer, Refusal},
};

/// Which runs of a list, and which page of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub(crate) filter: Filter,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: usize,
}

/// The runs of a page, unless the request says otherwise.
pub(crate) const LIMIT: usize = 50;
/// The maximum number of runs of a page.
pub(crate) const MOST: usize = 500;

/// The pairs of a query or of a form, in their order.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes()).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

impl Listing {
    /// Reads a query. An empty value is as if the name was missing, since forms send it so.
    ///
    /// # Errors
    /// A bad request, for a name or a value that is not known.
    pub(crate) fn read(query: &str) -> Answer<Self> {
        let mut listing = Self { limit: LIMIT, ..Self::default() };
        for (name, value) in pairs(query).into_iter().filter(|(_, value)| !value.is_empty()) {
            match name.as_str() {
                "cursor" => listing.cursor = Some(value),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    let bad = || Refusal::bad_request(format!("the limit {value:?} is not a number from 1 to {MOST}"));
                    listing.limit = limit.ok_or_else(bad)?;
                }
                _ => listing.filter.set(&name, &value)?,
            }
        }
        Ok(listing)
    }

    /// The query that the client understands.
    pub(crate) fn query(&self) -> Query {
        Query { cursor: self.cursor.clone(), limit: self.limit, ..self.filter.query() }
    }
}

impl Filter {
    /// Takes one pair of a query.
    fn set(&mut self, name: &str, value: &str) -> Answer<()> {
        match name {
            "status" => self.status.push(status(value)?),
            "workflow" => self.workflow = Some(value.to_owned()),
            "meta" => {
                let bad =
                    || Refusal::bad_request(format!("{value:?} is not a metadata filter: write it as name:value"));
                let (name, value) = value.split_once(':').ok_or_else(bad)?;
                self.meta.insert(name.to_owned(), value.to_owned());
            }
            "from" => self.from = Some(moment(value)?),
            "before" => self.before = Some(moment(value)?),
            "parent" => {
                let id = value.parse().map_err(|error| Refusal::bad_request(format!("{error}")))?;
                self.parent = Some(id);
            }
            other => {
                let known = "status, workflow, meta, from, before, parent, cursor, limit";
                return Err(Refusal::bad_request(format!("{other:?} is not a filter; there are {known}")));
            }
        }
        Ok(())
    }

    /// The query of all its runs.
    pub(crate) fn query(&self) -> Query {
        Query {
            parent: self.parent,
            statuses: self.status.clone(),
            workflow: self.workflow.as_deref().map(Into::into),
            metadata: self.meta.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            created_from: self.from.map(|Time(at)| at),
            created_before: self.before.map(|Time(at)| at),
            ..Query::default()
        }
    }

    /// The pairs of a query that read back as this filter.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<_> = self.status.iter().map(|status| ("status", status.to_string())).collect();
        pairs.extend(self.workflow.iter().map(|workflow| ("workflow", workflow.clone())));
        pairs.extend(self.meta.iter().map(|(name, value)| ("meta", format!("{name}:{value}"))));
        pairs.extend(self.from.map(|from| ("from", from.to_string())));
        pairs.extend(self.before.map(|before| ("before", before.to_string())));
        pairs.extend(self.parent.map(|parent| ("parent", parent.to_string())));
        pairs
    }
}

/// The text of a query from its pairs.
pub(crate) fn text<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs);
    text.finish()
}

/// All statuses, in the order of a run's life.
pub(crate) const STATUSES: [RunStatus; 8] = [
    RunStatus::Queued,
    RunStatus::Running,
    RunStatus::Waiting,
    RunStatus::Stalled,
    RunStatus::Succeeded,
    RunStatus::Failed,
    RunStatus::Cancelled,
    RunStatus::Expired,
];

fn status(text: &str) -> Answer<RunStatus> {
    let bad = || {
        let known = STATUSES.map(|status| status.to_string()).join(", ");
        Refusal::bad_request(format!("{text:?} is not a status; there are {known}"))
    };
    STATUSES.into_iter().find(|status| status.to_string() == text).ok_or_else(bad)
}

pub(crate) fn moment(text: &str) -> Answer<Time> {
    text.parse().map_err(|error| Refusal::bad_request(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back_from_its_own_pairs() {
        let query = "status=failed&status=running&workflow=a%26b&meta=x%3Ay%3Az&from=2026-03-01T09%3A30%3A00.000Z&\
                     parent=00000000000000000000000000000007";
        let read = Listing::read(query).unwrap();
        assert_eq!(read.filter.meta["x"], "y:z");
        assert_eq!(read.filter.status, [RunStatus::Failed, RunStatus::Running]);
        assert_eq!(Listing::read(&text(read.filter.pairs())).unwrap(), read);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for query in ["status=lost", "meta=x", "from=now", "parent=7", "limit=0", "limit=501", "limit=-1", "colour=red"]
        {
            assert!(Listing::read(query).is_err(), "{query}");
        }
    }
}
