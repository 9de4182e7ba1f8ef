//! A real web server in a backend: it answers with its own name.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::error::{Context as _, LabError, until};
use super::host::Host;
use super::process::Process;

/// Files for tests of full-size packets and long answers: name and bytes.
const FILES: [(&str, usize); 3] = [("1k", 1 << 10), ("64k", 1 << 16), ("1m", 1 << 20)];

/// Starts nginx on port 80, both families, and waits until it answers.
pub(super) fn start(host: &Host) -> Result<Process, LabError> {
    let directory = host.directory();
    for (name, size) in FILES {
        let file = directory.join(name);
        fs::write(&file, vec![b'x'; size]).context(|| file.display().to_string())?;
    }
    let file = directory.join("nginx.conf");
    let text = configuration(host.name(), host.service(), directory);
    fs::write(&file, text).context(|| file.display().to_string())?;
    let nginx = host.spawn(&["nginx".as_ref(), "-c".as_ref(), file.as_os_str()])?;
    let own = SocketAddr::from((host.v4(), 80));
    let what = format!("nginx of {} listens", host.name());
    let listens = host.in_ns(|| {
        until(&what, Duration::from_secs(10), || {
            TcpStream::connect_timeout(&own, Duration::from_millis(200)).ok()
        })
    })?;
    match listens {
        Ok(_) => Ok(nginx),
        Err(error) => Err(nginx.with_log(error)),
    }
}

fn configuration(name: &str, service: &str, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"daemon off;
master_process off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    add_header x-service "{service}" always;
    add_header x-backend "{name}" always;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        root {directory};
        location / {{ return 200 "{name}\n"; }}
        location /healthz {{ return 200 "ok\n"; }}
        location = /1k {{ }}
        location = /64k {{ }}
        location = /1m {{ }}
    }}
}}
"#
    )
}
