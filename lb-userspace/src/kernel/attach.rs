//! The balancer on interfaces: attached by links that are pinned, so that it stays when the agent
//! goes, and off again.
//!
//! All of it acts on the pins of the caller's network namespace and needs no agent.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use aya::programs::loaded_programs;
use serde::Serialize;

use super::KernelError;
use super::link::{self, FdInfo};
use super::pins::Pins;
use crate::config::XdpMode as Wanted;
use crate::net::{self, NetError, XdpMode};

/// A failure to attach or detach.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface.
    #[error("there is no interface {0} here (see `ip link`)")]
    NoInterface(String),
    /// Another XDP program has the interface, and two cannot share it.
    #[error(
        "{interface} has an XDP program that is not ours: {} (id {id}, {}); take it off first with \
         the tool that attached it, or `ip link set dev {interface} xdp off`",
        named(.name),
        .mode.as_str()
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// Id of the program (`bpftool prog show id`).
        id: u32,
        /// Its name, as far as the kernel keeps it; may be empty.
        name: String,
        /// How it is attached.
        mode: XdpMode,
    },
    /// The pin of the interface holds a link that is attached somewhere else.
    #[error(
        "{} holds a link to interface number {index}, which is not {interface}: it was renamed or \
         is in another network namespace; run `lbguard detach {interface}` there first",
        pin.display()
    )]
    Elsewhere {
        /// The interface asked for.
        interface: String,
        /// The pin.
        pin: PathBuf,
        /// Index of the interface that has it.
        index: u32,
    },
    /// The kernel refused the link.
    #[error("{interface} (MTU {mtu}) does not take the XDP program in {modes} mode: {source}")]
    Refused {
        /// The interface.
        interface: String,
        /// Its MTU: drivers bound it.
        mtu: u32,
        /// The modes that were tried.
        modes: &'static str,
        /// Why, for the last of them.
        source: io::Error,
    },
    /// Nothing of ours is on the interface.
    #[error("lbguard is not attached to {interface}{}", others(.attached))]
    NotAttached {
        /// The interface.
        interface: String,
        /// Where it is attached.
        attached: Vec<String>,
    },
    /// Loading, pinning and the like.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The interfaces could not be read.
    #[error(transparent)]
    Net(#[from] NetError),
}

fn named(name: &str) -> String {
    if name.is_empty() {
        "without a name".to_owned()
    } else {
        format!("\"{name}\"")
    }
}

fn others(attached: &[String]) -> String {
    if attached.is_empty() {
        String::new()
    } else {
        format!(" (it is to {})", attached.join(", "))
    }
}

/// What [`attach`] has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It is attached now.
    New,
    /// It was, and is, the same program.
    Already,
    /// An older program was replaced, in the mode that it had.
    Replaced,
}

/// An interface with the balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// Its index; 0 if the interface is gone.
    pub index: u32,
    /// Where the program runs; `None` if the interface is not in this network namespace.
    pub mode: Option<&'static str>,
    /// Id of the program.
    pub program: u32,
    /// Its tag: the same for the same instructions, 16 hexadecimal digits.
    pub tag: String,
    /// Id of the link.
    pub link: u32,
}

/// An interface that [`attach`] has seen to.
#[derive(Debug)]
pub struct Attachment {
    /// What is there now.
    pub at: Attached,
    /// What was done.
    pub done: Done,
    /// Why it is generic although native was tried first.
    pub not_native: Option<io::Error>,
}

/// Attaches the pinned program to an interface and pins the link, or puts the pinned program in
/// the place of an older one.
///
/// # Errors
/// [`AttachError::Foreign`] if another program is there, which is left as it is; nothing is
/// attached in any other way than by a link.
pub fn attach(pins: &Pins, interface: &str, mode: Wanted) -> Result<Attachment, AttachError> {
    let there = net::links::read(interface)?
        .ok_or_else(|| AttachError::NoInterface(interface.to_owned()))?;
    let program = program(pins)?;
    if let Some(done) = adopt(pins, &there, &program)? {
        return Ok(Attachment {
            at: one(pins, interface)?,
            done,
            not_native: None,
        });
    }
    if let Some(foreign) = there.xdp {
        return Err(self::foreign(interface, foreign));
    }
    let (link, not_native) = create(&there, &program, mode)?;
    let pin = pins.link(interface);
    // If this fails, dropping the link takes the program off again.
    link::pin(link.as_fd(), &pin)
        .map_err(|e| KernelError::io(format!("pin {}", pin.display()), e))?;
    Ok(Attachment {
        at: one(pins, interface)?,
        done: Done::New,
        not_native,
    })
}

/// The interfaces that have a pinned link, by name.
pub fn list(pins: &Pins) -> Result<Vec<Attached>, AttachError> {
    let interfaces = net::links::read_all()?;
    pins.linked()
        .into_iter()
        .map(|name| {
            describe(
                pins,
                &name,
                interfaces.iter().find(|link| link.name == name),
            )
        })
        .collect()
}

/// Takes the balancer off an interface. When this returns, it forwards nothing there any more.
pub fn detach(pins: &Pins, interface: &str) -> Result<(), AttachError> {
    let pin = pins.link(interface);
    if !pin.exists() {
        let (interface, attached) = (interface.to_owned(), pins.linked());
        return Err(AttachError::NotAttached {
            interface,
            attached,
        });
    }
    let link = open(&pin)?;
    match link::detach(link.as_fd()) {
        // The interface is gone, and the link with it.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
        outcome => outcome.map_err(|e| KernelError::io(format!("detach {interface}"), e))?,
    }
    fs::remove_file(&pin).map_err(|e| KernelError::io(format!("remove {}", pin.display()), e))?;
    Ok(())
}

/// Takes the balancer off all interfaces and the host.
///
/// # Returns
/// The interfaces that it was attached to.
pub fn unload(pins: &Pins) -> Result<Vec<String>, AttachError> {
    let interfaces = pins.linked();
    for interface in &interfaces {
        detach(pins, interface)?;
    }
    pins.remove()?;
    Ok(interfaces)
}

/// Name of a loaded program, at most 15 bytes; empty if it has none.
pub fn program_name(id: u32) -> String {
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id);
    program
        .and_then(|program| program.name_as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}

fn program(pins: &Pins) -> Result<OwnedFd, AttachError> {
    let path = pins.program("lb");
    if !path.exists() {
        return Err(KernelError::NotLoaded(path).into());
    }
    open(&path)
}

fn open(path: &std::path::Path) -> Result<OwnedFd, AttachError> {
    link::open(path).map_err(|e| KernelError::io(format!("open {}", path.display()), e).into())
}

fn info(fd: &OwnedFd) -> Result<FdInfo, AttachError> {
    FdInfo::of(fd.as_fd()).map_err(|e| KernelError::io("read what a descriptor is", e).into())
}

/// Deals with the link that is pinned for the interface, if there is one.
fn adopt(pins: &Pins, there: &net::Link, program: &OwnedFd) -> Result<Option<Done>, AttachError> {
    let pin = pins.link(&there.name);
    if !pin.exists() {
        return Ok(None);
    }
    let link = open(&pin)?;
    let link_info = info(&link)?;
    let (index, running) = (link_info.number("ifindex"), link_info.number("prog_id"));
    if index == 0 {
        // The interface that it was for is gone, and another one has its name.
        fs::remove_file(&pin)
            .map_err(|e| KernelError::io(format!("remove {}", pin.display()), e))?;
        return Ok(None);
    }
    if index != there.index || there.xdp.map(|xdp| xdp.id) != Some(running) {
        let interface = there.name.clone();
        return Err(AttachError::Elsewhere {
            interface,
            pin,
            index,
        });
    }
    if running == info(program)?.number("prog_id") {
        return Ok(Some(Done::Already));
    }
    link::update(link.as_fd(), program.as_fd())
        .map_err(|e| KernelError::io(format!("replace the program of {}", there.name), e))?;
    Ok(Some(Done::Replaced))
}

/// Makes the link in the first mode that is wanted and works.
fn create(
    there: &net::Link,
    program: &OwnedFd,
    mode: Wanted,
) -> Result<(OwnedFd, Option<io::Error>), AttachError> {
    let attempt = |native| link::create(program.as_fd(), there.index, native);
    let refused = |modes, source: io::Error| {
        // Somebody was quicker.
        let now = net::links::read(&there.name)
            .ok()
            .flatten()
            .and_then(|link| link.xdp);
        match now.filter(|_| source.raw_os_error() == Some(libc::EBUSY)) {
            Some(other) => foreign(&there.name, other),
            None => AttachError::Refused {
                interface: there.name.clone(),
                mtu: there.mtu,
                modes,
                source,
            },
        }
    };
    let native = match mode {
        Wanted::Generic => None,
        Wanted::Auto | Wanted::Native => match attempt(true) {
            Ok(link) => return Ok((link, None)),
            Err(error) if mode == Wanted::Native => return Err(refused("native", error)),
            Err(error) => Some(error),
        },
    };
    let modes = if native.is_some() {
        "native or generic"
    } else {
        "generic"
    };
    attempt(false)
        .map(|link| (link, native))
        .map_err(|error| refused(modes, error))
}

fn foreign(interface: &str, program: net::XdpProgram) -> AttachError {
    AttachError::Foreign {
        interface: interface.to_owned(),
        id: program.id,
        name: program_name(program.id),
        mode: program.mode,
    }
}

fn one(pins: &Pins, interface: &str) -> Result<Attached, AttachError> {
    describe(pins, interface, net::links::read(interface)?.as_ref())
}

fn describe(
    pins: &Pins,
    interface: &str,
    there: Option<&net::Link>,
) -> Result<Attached, AttachError> {
    let info = info(&open(&pins.link(interface))?)?;
    let (index, program) = (info.number("ifindex"), info.number("prog_id"));
    let ours = there
        .filter(|link| link.index == index)
        .and_then(|link| link.xdp);
    Ok(Attached {
        interface: interface.to_owned(),
        index,
        mode: ours
            .filter(|xdp| xdp.id == program)
            .map(|xdp| xdp.mode.as_str()),
        program,
        tag: info.text("prog_tag").unwrap_or_default().to_owned(),
        link: info.number("link_id"),
    })
}
