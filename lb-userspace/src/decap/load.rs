//! Loads the embedded object, fills its maps and attaches it.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapError};
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use lb_common::decap::Settings;

use super::error::DecapError;
use super::foreign::program_on;
use super::prefix::mapped;
use super::{Mode, Options};

/// `lb-ebpf/src/decap.rs`, as built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decap"));

/// Loads the maps with what `options` say; the program is loaded when it is attached.
pub(super) fn load(options: &Options) -> Result<Ebpf, DecapError> {
    let mut object = EbpfLoader::new().load(OBJECT)?;
    fill(&mut object, options)?;
    Ok(object)
}

fn fill(object: &mut Ebpf, options: &Options) -> Result<(), DecapError> {
    let map = |error| DecapError::Map(error);
    let mut destinations: HashMap<_, [u8; 16], u8> = take(object, "DESTINATIONS")?;
    for &address in &options.destinations {
        destinations.insert(mapped(address), 1, 0).map_err(map)?;
    }
    let mut sources: LpmTrie<_, [u8; 16], u8> = take(object, "SOURCES")?;
    for prefix in &options.sources {
        let (length, address) = prefix.mapped();
        sources
            .insert(&Key::new(length, address), 1, 0)
            .map_err(map)?;
    }
    let mut settings: Array<_, Settings> = take(object, "SETTINGS")?;
    let told = Settings {
        check_destination: u32::from(!options.destinations.is_empty()),
        check_source: u32::from(!options.sources.is_empty()),
    };
    settings.set(0, told, 0).map_err(map)
}

fn take<'a, M>(object: &'a mut Ebpf, name: &'static str) -> Result<M, DecapError>
where
    M: TryFrom<&'a mut aya::maps::Map, Error = MapError>,
{
    let map = object.map_mut(name).ok_or(DecapError::Object(name))?;
    M::try_from(map).map_err(DecapError::Map)
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DecapError> {
    let program = object.program_mut(name).ok_or(DecapError::Object(name))?;
    let program: &mut Xdp = program.try_into()?;
    if program.fd().is_err() {
        crate::kernel::verified::load(program)?;
    }
    Ok(program)
}

/// Attaches `decap`; refuses an interface that has a program.
///
/// # Returns
/// The link, and the mode it has.
pub(super) fn attach(
    object: &mut Ebpf,
    interface: &str,
    mode: Mode,
) -> Result<(FdLink, Mode), DecapError> {
    attach_program(program(object, "decap")?, interface, mode)
}

fn attach_program(
    program: &mut Xdp,
    interface: &str,
    mode: Mode,
) -> Result<(FdLink, Mode), DecapError> {
    if let Some(foreign) = program_on(interface)? {
        return Err(DecapError::Foreign {
            interface: interface.to_owned(),
            program: foreign,
        });
    }
    if mode != Mode::Generic {
        match attach_as(program, interface, XdpMode::Driver) {
            Ok(link) => return Ok((link, Mode::Native)),
            Err(source) if mode == Mode::Native => {
                return Err(refused(interface, "native", source));
            }
            Err(_) => {}
        }
    }
    match attach_as(program, interface, XdpMode::Skb) {
        Ok(link) => Ok((link, Mode::Generic)),
        Err(source) => Err(refused(interface, "generic", source)),
    }
}

fn refused(interface: &str, mode: &'static str, source: ProgramError) -> DecapError {
    DecapError::Attach {
        interface: interface.to_owned(),
        mode,
        source,
    }
}

/// A link that is a file descriptor: others can't be pinned, and end with the process.
fn attach_as(program: &mut Xdp, interface: &str, mode: XdpMode) -> Result<FdLink, ProgramError> {
    let id = program.attach(interface, mode)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|_| ProgramError::UnexpectedProgramType)
}

/// Puts `decap` in the place of the program that `link` holds; no packet passes by without one.
pub(super) fn replace(object: &mut Ebpf, link: XdpLink) -> Result<FdLink, DecapError> {
    let program = program(object, "decap")?;
    let id = program.attach_to_link(link)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|_| DecapError::Program(ProgramError::UnexpectedProgramType))
}

/// A program that is attached while this lives, for the lab.
#[derive(Debug)]
pub(crate) struct Held {
    _link: FdLink,
    _object: Ebpf,
}

/// Attaches `decap` for all destinations and sources.
pub(crate) fn hold_decap(interface: &str) -> Result<Held, DecapError> {
    hold(interface, "decap")
}

/// Attaches a program that passes everything.
pub(crate) fn hold_pass(interface: &str) -> Result<Held, DecapError> {
    hold(interface, "pass")
}

fn hold(interface: &str, name: &'static str) -> Result<Held, DecapError> {
    let mut object = load(&Options::default())?;
    let (link, _) = attach_program(program(&mut object, name)?, interface, Mode::Auto)?;
    Ok(Held {
        _link: link,
        _object: object,
    })
}
