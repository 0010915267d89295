//! Snapshots in a bucket of a server that speaks S3: `moto_server`, started on this machine, with lines that are cut in the middle
//! of an upload.
//!
//! `python3` makes an environment of its own below the directory that cargo builds in, and `pip` puts `moto[server]` there, once.
//! Where either is missing, or nothing can be installed, the tests say so and end.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that starts a server, waits for it, and says why it could not"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http_body_util::{BodyExt, Collected};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use vault_core::clock::ManualClock;
use vault_core::vfs::MemoryFileSystem;
use vault_snapshot::archive::Kind;
use vault_snapshot::destination::{ObjectStoreDestination, ObjectStoreOptions};
use vault_snapshot::repository::{CreateOptions, Parent, Repository, RepositoryOptions};
use vault_snapshot::retention::Retention;

use support::*;

/// How long the server may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// A server, until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Starts one, or says why not.
    fn start() -> Result<Self, String> {
        let program = installed()?;
        // Whoever takes the port in between makes the server end, and the test say so.
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        drop(listener);
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("moto_server: {e}"))?;
        let mut server = Self { child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > START_MAX || server.child.try_wait().is_ok_and(|end| end.is_some())
            {
                return Err("moto_server does not answer".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        server.make_bucket()?;
        Ok(server)
    }

    fn make_bucket(&self) -> Result<(), String> {
        let mut line = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        let request = "PUT /snapshots HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
                       Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request\r\n\
                       Connection: close\r\n\r\n";
        line.write_all(request.as_bytes())
            .map_err(|e| e.to_string())?;
        let mut answer = String::new();
        line.read_to_string(&mut answer)
            .map_err(|e| e.to_string())?;
        match answer.contains(" 200 ") {
            true => Ok(()),
            false => Err(format!("no bucket: {answer}")),
        }
    }
}

/// Where `moto_server` is, after it was installed if need be. One test does it, the others wait.
fn installed() -> Result<PathBuf, String> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let install = || {
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("moto");
        let program = home.join("bin/moto_server");
        if program.is_file() {
            return Ok(program);
        }
        let run = |program: &std::path::Path, arguments: &[&str]| {
            let what = format!("{} {}", program.display(), arguments.join(" "));
            let done = Command::new(program).args(arguments).output();
            let done = done.map_err(|e| format!("{what}: {e}"))?;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            done.status
                .success()
                .then_some(())
                .ok_or(format!("{what}: {said}"))
        };
        let home_text = home.display().to_string();
        run("python3".as_ref(), &["-m", "venv", &home_text])?;
        let pip = home.join("bin/pip");
        run(&pip, &["install", "--quiet", "moto[server]"])?;
        Ok(program)
    };
    INSTALLED.get_or_init(install).clone()
}

/// Passes bytes on to a server, and cuts the line after so many.
struct Proxy {
    port: u16,
    /// Bytes that still go to the server; negative for no end.
    left: Arc<AtomicI64>,
}

impl Proxy {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicI64::new(-1));
        let counted = Arc::clone(&left);
        thread::spawn(move || {
            for line in listener.incoming().flatten() {
                let Ok(onward) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let (back, answer) = (line.try_clone().unwrap(), onward.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                thread::spawn(move || pass(line, onward, Some(&counted)));
                thread::spawn(move || pass(answer, back, None));
            }
        });
        Self { port, left }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: Option<&AtomicI64>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let cut = left.is_some_and(|left| {
            let before = left.load(Ordering::SeqCst);
            before >= 0 && left.fetch_sub(read as i64, Ordering::SeqCst) <= read as i64
        });
        if cut {
            // And every line after this one, until it is mended.
            left.inspect(|left| left.store(0, Ordering::SeqCst));
        }
        if read == 0 || cut || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

/// HTTP as plain as it gets: a line for each request, closed behind the answer.
#[derive(Debug)]
struct Plain;

impl HttpConnector for Plain {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

#[async_trait]
impl HttpService for Plain {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(Collected::to_bytes);
        let body = body.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let answered = tokio::task::spawn_blocking(move || exchange(&head, &body)).await;
        let answered = answered.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        answered.map_err(|e| HttpError::new(HttpErrorKind::Interrupted, e))
    }
}

fn exchange(request: &http::request::Parts, body: &[u8]) -> std::io::Result<HttpResponse> {
    let odd = |what: &str| std::io::Error::other(what.to_owned());
    let uri = &request.uri;
    let (host, port) = uri
        .host()
        .zip(uri.port_u16())
        .ok_or_else(|| odd("no address"))?;
    let mut line = TcpStream::connect((host, port))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = format!(
        "{} {path} HTTP/1.1\r\nHost: {host}:{port}\r\n",
        request.method
    );
    for (name, value) in &request.headers {
        if name != "host" && name != "content-length" {
            head += &format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
        }
    }
    head += &format!(
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    line.write_all(head.as_bytes())?;
    line.write_all(body)?;
    let mut answer = Vec::new();
    line.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| odd("no answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    let status = status.parse::<u16>().map_err(|_| odd("no status"))?;
    let mut response = http::Response::builder().status(status);
    let mut wanted = None;
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| odd("no header"))?;
        if name.eq_ignore_ascii_case("content-length") {
            wanted = value.parse::<usize>().ok();
        }
        response = response.header(name, value);
    }
    let body = answer.split_off(end + 4);
    if request.method != "HEAD" && wanted.is_some_and(|wanted| wanted != body.len()) {
        return Err(odd("the answer ends too early"));
    }
    let body = object_store::client::HttpResponseBody::from(body);
    response.body(body).map_err(std::io::Error::other)
}

fn repository(port: u16, prefix: &str, clock: &Arc<ManualClock>) -> Repository {
    let client = ClientOptions::new()
        .with_allow_http(true)
        .with_timeout(Duration::from_secs(20));
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        base: 2.0,
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(format!("http://127.0.0.1:{port}"))
        .with_bucket_name("snapshots")
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_client_options(client)
        .with_http_connector(Plain)
        .with_retry(RetryConfig {
            backoff,
            max_retries: 2,
            retry_timeout: Duration::from_secs(5),
        })
        .build()
        .unwrap();
    let options = ObjectStoreOptions {
        part_bytes: 5 << 20,
        ..ObjectStoreOptions::default()
    };
    let place = ObjectStoreDestination::new(Arc::new(store), prefix, options).unwrap();
    let options = RepositoryOptions {
        clock: clock.clone(),
        ..RepositoryOptions::default()
    };
    Repository::open(Arc::new(place), options).unwrap()
}

/// One server at a time: they are large.
static TURN: Mutex<()> = Mutex::new(());

fn with_server(test: impl FnOnce(&Server)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match Server::start() {
        Ok(server) => test(&server),
        Err(why) => println!("SKIPPED, there is no server of S3 here: {why}"),
    }
}

fn large_files() -> Files {
    let mut files = some_files(1);
    let large = (0..12_000_000u32).map(|n| (n >> 3) as u8).collect();
    files.insert("000020.table".into(), large);
    files
}

#[test]
fn a_bucket_of_a_server_holds_snapshots() {
    with_server(|server| {
        let clock = Arc::new(ManualClock::new(NOW));
        let repository = repository(server.port, "backups/one", &clock);
        let options = CreateOptions {
            parent: Parent::Newest,
            ..CreateOptions::default()
        };
        let mut files = large_files();
        let full = repository.create(source_of(&files), &options, &()).unwrap();
        files.insert("000021.table".into(), vec![3; 1000]);
        clock.advance(Duration::from_secs(60));
        let next = repository.create(source_of(&files), &options, &()).unwrap();
        assert_eq!((full.kind, next.kind), (Kind::Full, Kind::Incremental));
        assert_eq!(repository.names().unwrap(), [full.name, next.name]);
        repository.verify(next.name, &()).unwrap();
        let fs = MemoryFileSystem::new();
        let all = |_: &_| true;
        repository
            .extract(next.name, &fs, TARGET.as_ref(), &all, |_| Ok(()), &())
            .unwrap();
        assert_eq!(files_in(&fs, TARGET), files);
        // What is there is not put there again.
        let error = repository
            .destination()
            .publish(full.name, b"{}")
            .unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        // Nor is the name given away again. It is the manifest that holds it, no reservation does, also after the first refusal.
        for _ in 0..2 {
            let refused = repository.destination().begin(next.name).err();
            let refused = refused.expect("the name is taken").to_string();
            assert!(
                refused.contains("another snapshot of this name"),
                "{refused}"
            );
        }
        clock.advance(Duration::from_secs(60));
        let merged = repository.consolidate(next.name, &()).unwrap();
        let pruned = repository.prune(&Retention::default(), false).unwrap();
        assert_eq!(pruned.remove, [full.name, next.name]);
        assert_eq!(repository.names().unwrap(), [merged.name]);
        repository.verify(merged.name, &()).unwrap();
    });
}

#[test]
fn an_upload_that_is_cut_half_way_is_never_listed() {
    with_server(|server| {
        let proxy = Proxy::before(server.port);
        let clock = Arc::new(ManualClock::new(NOW));
        let cut_off = repository(proxy.port, "backups/cut", &clock);
        let direct = repository(server.port, "backups/cut", &clock);
        let files = large_files();
        let mut made = Vec::new();
        for bytes in [0, 1_000, 100_000, 3 << 20, 7 << 20, 11 << 20, -1] {
            proxy.left.store(bytes, Ordering::SeqCst);
            let result = cut_off.create(source_of(&files), &CreateOptions::default(), &());
            proxy.left.store(-1, Ordering::SeqCst);
            assert_eq!(result.is_ok(), bytes < 0, "{bytes}: {result:?}");
            made.extend(result.ok().map(|manifest| manifest.name));
            assert_eq!(direct.names().unwrap(), made, "{bytes}");
            clock.advance(Duration::from_secs(60));
        }
        direct.verify(made[0], &()).unwrap();
        // Reading is cut off as well, and says so.
        proxy.left.store(300, Ordering::SeqCst);
        let error = cut_off.verify(made[0], &()).unwrap_err();
        assert!(
            !matches!(error, vault_snapshot::archive::Error::Damaged { .. }),
            "{error}"
        );
        proxy.left.store(-1, Ordering::SeqCst);
        cut_off.verify(made[0], &()).unwrap();
        clock.advance(Duration::from_secs(48 * 3600));
        direct.clean().unwrap();
        assert_eq!(direct.survey().unwrap().interrupted, []);
        assert_eq!(direct.names().unwrap(), made);
    });
}
