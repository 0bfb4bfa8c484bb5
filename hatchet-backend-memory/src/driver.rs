//! Stores by URL, so that a program can choose its backend at run time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hatchet_core::backend::{Backend, BackendError, BackendResult, Driver};

use crate::{MemoryBackend, NAME, options::MemoryOptions};

/// The driver for URLs of the form `memory://[name][?retention=<time>&keep=<trees>]`.
///
/// * Without a name, each connection has its own new store.
/// * With a name, all connections of one process share a store, as long as one of them is alive.
/// * `retention` is [`MemoryOptions::retention`], in seconds or as `30s`, `10m`, `1h`. `keep` is
///   [`MemoryOptions::keep_finished`]. The first connection to a name sets them. Later connections repeat the same
///   values or leave them out.
pub static DRIVER: Driver = SUBMITTED;

const SUBMITTED: Driver = Driver {
    schemes: &["memory"],
    default_url: Some("memory://"),
    rank: 0,
    connect: |url| Box::pin(std::future::ready(connect(url))),
};

inventory::submit! { SUBMITTED }

/// The stores that have a name. They live as long as somebody uses them.
static NAMED: Mutex<BTreeMap<String, Weak<MemoryBackend>>> = Mutex::new(BTreeMap::new());

/// A URL, parsed.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    name: String,
    /// The options, if the URL gives one.
    options: Option<MemoryOptions>,
}

fn connect(url: &str) -> BackendResult<Arc<dyn Backend>> {
    let Address { name, options } = parse(url)?;
    if name.is_empty() {
        return Ok(Arc::new(MemoryBackend::with_options(options.unwrap_or_default())));
    }
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    named.retain(|_, store| store.strong_count() > 0);
    if let Some(store) = named.get(&name).and_then(Weak::upgrade) {
        return match options {
            Some(options) if options != store.options() => Err(unusable(format!(
                "memory://{name} is open with other options: {:?}; repeat them or leave them out",
                store.options()
            ))),
            _ => Ok(store),
        };
    }
    let store = Arc::new(MemoryBackend::with_options(options.unwrap_or_default()));
    named.insert(name, Arc::downgrade(&store));
    Ok(store)
}

fn parse(url: &str) -> BackendResult<Address> {
    // Nothing of the URL is repeated, here and below: it may be one of another store, with its password.
    let rest = url.strip_prefix("memory://").ok_or_else(|| {
        unusable("not a URL of the memory backend: expected memory://, or memory://name to share a store".to_owned())
    })?;
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    let name = name.strip_suffix('/').unwrap_or(name);
    if let Some(bad) = name.chars().find(|c| !c.is_alphanumeric() && !"-_.".contains(*c)) {
        return Err(unusable(format!(
            "the name of the store contains {bad:?}: letters, digits, '-', '_' and '.' are valid"
        )));
    }
    let mut options = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (option, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known: MemoryOptions = options.unwrap_or_default();
        options = Some(match option {
            "retention" => known.retention(parse_retention(value)?),
            "keep" => known.keep_finished(parse_keep(value)?),
            _ => {
                return Err(unusable("unknown URL parameter; valid: retention, keep".to_owned()));
            }
        });
    }
    Ok(Address { name: name.to_owned(), options })
}

fn parse_retention(value: &str) -> BackendResult<Duration> {
    let seconds = value.parse().map(Duration::from_secs).ok();
    seconds.or_else(|| humantime::parse_duration(value).ok()).ok_or_else(|| {
        unusable(
            "invalid value of retention=: expected seconds, or a number with a unit such as 30s, 10m or 1h".to_owned(),
        )
    })
}

fn parse_keep(value: &str) -> BackendResult<usize> {
    value.parse().map_err(|_| unusable("invalid value of keep=: expected a number of trees, such as 1000".to_owned()))
}

fn unusable(reason: String) -> BackendError {
    BackendError::Unusable { backend: NAME, reason, source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        connect(url).unwrap_err().to_string()
    }

    #[test]
    fn options_of_a_url_are_read() {
        let options = |url| parse(url).unwrap().options;
        let default = MemoryOptions::default();
        assert_eq!(options("memory://"), None);
        assert_eq!(options("memory://?retention=90"), Some(default.retention(Duration::from_secs(90))));
        assert_eq!(
            options("memory://x/?retention=10m&keep=7"),
            Some(default.retention(Duration::from_secs(600)).keep_finished(7))
        );
        assert_eq!(parse("memory://a-b.c_1").unwrap().name, "a-b.c_1");
    }

    #[test]
    fn a_bad_url_says_what_would_be_right() {
        assert!(reason("redis://").contains("expected memory://"));
        assert!(reason("memory://?retain=1").contains("valid: retention, keep"));
        assert!(reason("memory://?retention=soon").contains("30s, 10m or 1h"));
        assert!(reason("memory://?retention=").contains("30s, 10m or 1h"));
        assert!(reason("memory://?keep=-1").contains("number of trees"));
        assert!(reason("memory://a/b").contains("letters, digits"));
    }

    #[test]
    fn nothing_of_a_bad_url_is_repeated() {
        for url in [
            "memory:S3cret",
            "memory://u:S3cret@h",
            "memory://S3cret@h",
            "memory://x?S3cret",
            "memory://x?password=S3cret",
            "memory://x?S3cret=1",
            "memory://x?retention=S3cret",
            "memory://x?keep=S3cret",
        ] {
            let error = connect(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("S3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn stores_with_a_name_are_shared_and_others_are_not() {
        let same =
            |a: &Arc<dyn Backend>, b: &Arc<dyn Backend>| Arc::as_ptr(a).cast::<()>() == Arc::as_ptr(b).cast::<()>();
        let first = connect("memory://shared-in-a-test?keep=3").unwrap();
        assert!(same(&first, &connect("memory://shared-in-a-test").unwrap()));
        assert!(same(&first, &connect("memory://shared-in-a-test?keep=3").unwrap()));
        assert!(reason("memory://shared-in-a-test?keep=4").contains("other options"));
        assert!(!same(&connect("memory://").unwrap(), &connect("memory://").unwrap()));
    }

    #[test]
    fn a_store_with_a_name_goes_with_its_last_user() {
        let url = "memory://goes-with-its-last-user";
        drop(connect(url).unwrap());
        connect(&format!("{url}?keep=1")).unwrap();
        assert!(inventory::iter::<Driver>().any(|driver| driver.schemes == DRIVER.schemes));
    }
}
