//! A browser with a profile of its own, and what a person does with it.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::Method;
use fantoccini::{
    Client, ClientBuilder, Locator,
    elements::Element,
    error::CmdError,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::{ParseError, Url};

use crate::site::Site;

/// How long something may take to appear. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process that drives a browser. It ends with the browser and its profile when it is dropped, also after a panic.
struct Driver {
    child: Child,
    port: u16,
    profile: PathBuf,
}

impl Driver {
    fn start() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{}-{number}", std::process::id()));
        let program = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
        let mut command = Command::new(&program);
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): these tests need the packages chromium and chromium-driver")
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // "ChromeDriver was started successfully on port 12345."
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.strip_prefix("ChromeDriver was started successfully on port ")?.trim_end_matches('.').parse().ok()
        });
        // Nothing else is read: it must not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let port = port.unwrap_or_else(|| panic!("{program} does not say on which port it listens"));
        Self { child, port, profile }
    }

    fn capabilities(&self) -> Capabilities {
        let binary = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned());
        assert!(
            Path::new(&binary).exists(),
            "{binary} is missing: these tests need the packages chromium and chromium-driver"
        );
        let profile = format!("--user-data-dir={}", self.profile.display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
            &profile,
        ];
        let capabilities = json!({
            "browserName": "chrome",
            "unhandledPromptBehavior": "ignore",
            "goog:chromeOptions": {
                "binary": binary,
                "args": arguments,
                // Not the page for new tabs, which does a lot.
                "prefs": { "session": { "restore_on_startup": 4, "startup_urls": ["about:blank"] } },
            },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        capabilities.as_object().unwrap().clone()
    }

    /// Asks it to end, with its browsers.
    fn shut_down(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /shutdown HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        stream.read_to_string(&mut String::new()).map(drop)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let asked = self.shut_down();
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < Duration::from_secs(10) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// A command of this driver that the standard does not have.
#[derive(Debug)]
struct Extra {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extra {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// A browser that looks at a site.
pub(crate) struct Browser {
    pub(crate) client: Client,
    origin: String,
    prefix: &'static str,
    /// What it has sent and received, as far as it was asked.
    traffic: Mutex<Vec<Value>>,
    _driver: Driver,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Browser {
    /// Opens a browser at a path of the site.
    pub(crate) async fn open(site: &Site, path: &str) -> Self {
        let driver = Driver::start();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let url = format!("http://127.0.0.1:{}", driver.port);
        let client = builder.capabilities(driver.capabilities()).connect(&url).await.unwrap();
        let browser = Self {
            client,
            origin: site.origin.clone(),
            prefix: site.prefix,
            traffic: Mutex::default(),
            _driver: driver,
        };
        browser.goto(path).await;
        browser
    }

    /// Goes to a path as somebody who types it does.
    pub(crate) async fn goto(&self, path: &str) {
        self.client.goto(&format!("{}{}{path}", self.origin, self.prefix)).await.unwrap();
    }

    /// The path and the query of the page, without the prefix.
    pub(crate) async fn place(&self) -> String {
        let url = self.client.current_url().await.unwrap().to_string();
        let whole = format!("{}{}", self.origin, self.prefix);
        url.strip_prefix(&whole).unwrap_or_else(|| panic!("{url} is not below {whole}")).to_owned()
    }

    /// Waits until a page is there.
    pub(crate) async fn is_at(&self, path: &str) {
        self.until(&format!("the page is {path}"), async || Ok(self.place().await == path)).await;
    }

    /// Waits for something. What a page that is just being replaced says does not count.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> Result<bool, CmdError>) {
        let begun = Instant::now();
        loop {
            let answer = condition().await;
            match answer {
                Ok(true) => return,
                _ if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
                answer => {
                    let shown = self.client.execute("return document.body.innerText", vec![]).await;
                    let place = self.client.current_url().await.map(|url| url.to_string());
                    panic!("not in time: {what} ({answer:?})\nat {place:?}\nthe page says {shown:#?}")
                }
            }
        }
    }

    /// Waits until an element is there and can be used, and uses it. A page may be replaced in between.
    async fn with(&self, place: Locator<'_>, then: impl AsyncFn(Element) -> Result<(), CmdError>) {
        self.until(&format!("{place:?} can be used"), async || {
            let element = self.client.find(place).await?;
            then(element).await.map(|()| true)
        })
        .await;
    }

    /// Clicks on what a CSS selector finds first.
    pub(crate) async fn click(&self, css: &str) {
        self.with(Locator::Css(css), async |element| element.click().await).await;
    }

    /// Clicks on a link by its text.
    pub(crate) async fn follow(&self, text: &str) {
        self.with(Locator::LinkText(text), async |element| element.click().await).await;
    }

    /// Presses a button by its text.
    pub(crate) async fn press(&self, text: &str) {
        let path = format!("//button[normalize-space()='{text}']");
        self.with(Locator::XPath(&path), async |element| element.click().await).await;
    }

    /// Opens what is folded up.
    pub(crate) async fn unfold(&self, id: &str) {
        self.until(&format!("{id} is open"), async || {
            let details = self.client.find(Locator::Css(&format!("details#{id}"))).await?;
            if details.prop("open").await?.as_deref() == Some("true") {
                return Ok(true);
            }
            details.find(Locator::Css("summary")).await?.click().await?;
            Ok(false)
        })
        .await;
    }

    /// Types into the field that a CSS selector finds.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        self.with(Locator::Css(css), async |field| {
            field.clear().await?;
            field.send_keys(text).await
        })
        .await;
    }

    /// Chooses an entry of a list.
    pub(crate) async fn choose(&self, css: &str, value: &str) {
        self.with(Locator::Css(css), async |list| list.select_by_value(value).await).await;
    }

    /// Runs code on the page.
    pub(crate) async fn evaluate(&self, code: &str) -> Value {
        self.client.execute(code, vec![]).await.unwrap_or_else(|error| panic!("{code}: {error}"))
    }

    /// The visible text of what a CSS selector finds first; empty if there is nothing.
    pub(crate) async fn text(&self, css: &str) -> String {
        let code = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let text = self.client.execute(code, vec![css.into()]).await.unwrap();
        text.as_str().unwrap().to_owned()
    }

    /// The number of elements that a CSS selector finds.
    pub(crate) async fn count(&self, css: &str) -> u64 {
        let code = "return document.querySelectorAll(arguments[0]).length";
        self.client.execute(code, vec![css.into()]).await.unwrap().as_u64().unwrap()
    }

    /// Waits until the page shows a text.
    pub(crate) async fn shows(&self, text: &str) {
        self.shows_at("main", text).await;
    }

    /// Waits until a part of the page shows a text.
    pub(crate) async fn shows_at(&self, css: &str, text: &str) {
        self.until(&format!("{css} shows {text:?}"), async || {
            let code = "return document.querySelector(arguments[0])?.innerText ?? ''";
            let shown = self.client.execute(code, vec![css.into()]).await?;
            Ok(shown.as_str().unwrap_or_default().contains(text))
        })
        .await;
    }

    /// Waits until the page has this many elements.
    pub(crate) async fn has(&self, count: u64, css: &str) {
        self.until(&format!("there are {count} of {css}"), async || {
            let code = "return document.querySelectorAll(arguments[0]).length";
            Ok(self.client.execute(code, vec![css.into()]).await? == json!(count))
        })
        .await;
    }

    /// Tells the browser something that only its developer tools can.
    pub(crate) async fn tell(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Extra { path: "goog/cdp/execute", body }).await.unwrap();
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.client.issue_cmd(Extra { path: "se/log", body: json!({ "type": kind }) }).await.unwrap();
        log.as_array().unwrap().clone()
    }

    /// What the browser complained of since it was last asked: errors of scripts, answers with an error, breaches of the
    /// content security policy.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.log("browser").await;
        let is_bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("WARNING" | "SEVERE"));
        log.iter().filter(is_bad).map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// What it has sent or received, by an event of its developer tools.
    async fn traffic(&self, method: &str) -> Vec<Value> {
        let log = self.log("performance").await;
        let mut traffic = self.traffic.lock().unwrap();
        traffic.extend(log.iter().map(|entry| serde_json::from_str(entry["message"].as_str().unwrap()).unwrap()));
        let messages = traffic.iter().map(|entry: &Value| &entry["message"]);
        messages.filter(|message| message["method"] == method).map(|message| message["params"].clone()).collect()
    }

    /// The number of events of streams that have arrived.
    pub(crate) async fn events(&self) -> usize {
        self.traffic("Network.eventSourceMessageReceived").await.len()
    }

    /// The requests to other places than the site.
    pub(crate) async fn strays(&self) -> Vec<String> {
        let requests = self.traffic("Network.requestWillBeSent").await;
        assert!(!requests.is_empty(), "the browser does not say what it requests");
        let mut strays = Vec::new();
        for request in requests {
            let url = request["request"]["url"].as_str().unwrap();
            // Those with `chrome:` are the pages of the browser itself, such as that of a new tab.
            let is_own = ["data:", "chrome:", &format!("{}/", self.origin)].iter().any(|own| url.starts_with(own));
            if !is_own {
                strays.push(url.to_owned());
            }
        }
        strays
    }

    /// Ends the test: all complaints must be expected ones, each once, and no request has left the origin.
    pub(crate) async fn finish(self, expected: &[&str]) {
        let complaints = self.complaints().await;
        let is_as_expected = complaints.len() == expected.len()
            && complaints.iter().zip(expected).all(|(complaint, expected)| complaint.contains(expected));
        assert!(is_as_expected, "expected {expected:?}, but the browser says {complaints:#?}");
        assert_eq!(self.strays().await, [""; 0], "requests that left the origin");
        let dialog = self.client.get_alert_text().await;
        assert!(dialog.is_err(), "a dialog is open: {dialog:?}");
        self.client.clone().close().await.unwrap();
    }
}
