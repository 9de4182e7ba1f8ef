//! Which XDP program is on an interface, so that one that is not ours is left alone and named.

use std::fmt;
use std::thread;

use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkXdp};

use super::error::DecapError;

/// An XDP program that somebody else attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignProgram {
    /// Its id in the kernel (`bpftool prog show id`).
    pub id: u32,
    /// Its name, at most 15 characters; empty if it has none.
    pub name: String,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "with the id {}", self.id)
        } else {
            write!(f, "\"{}\" (id {})", self.name, self.id)
        }
    }
}

/// The XDP program on an interface of the caller's network namespace, in whatever mode, attached
/// by whatever means.
///
/// # Errors
/// [`DecapError::NoInterface`], or [`DecapError::Netlink`] when the kernel does not answer.
pub fn program_on(interface: &str) -> Result<Option<ForeignProgram>, DecapError> {
    // In a thread, because the caller may be inside a runtime; it inherits the namespace.
    let asked = thread::scope(|scope| scope.spawn(|| program_id(interface)).join());
    let id = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(id.map(|id| ForeignProgram {
        id,
        name: name_of(id).unwrap_or_default(),
    }))
}

fn name_of(id: u32) -> Option<String> {
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id)?;
    program.name_as_str().map(ToOwned::to_owned)
}

fn program_id(interface: &str) -> Result<Option<u32>, DecapError> {
    let failed = |reason: String| DecapError::Netlink {
        interface: interface.to_owned(),
        reason,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let message = runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| failed(error.to_string()))?;
        let connection = tokio::spawn(connection);
        let mut links = handle
            .link()
            .get()
            .match_name(interface.to_owned())
            .execute();
        let message = links.try_next().await;
        connection.abort();
        match message {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(DecapError::NoInterface(interface.to_owned())),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => {
                Err(DecapError::NoInterface(interface.to_owned()))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    })?;
    let attributes = message.attributes.iter();
    let xdp = attributes.filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    Ok(xdp.flatten().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    }))
}
