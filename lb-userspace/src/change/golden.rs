//! tmp
use crate::kernel::KernelError;
use crate::kernel::image::Image;
use crate::kernel::object::Kernel;
pub struct Report {
    pub run: usize,
    pub failed: Vec<String>,
}
pub fn run(_k: &Kernel, _i: &Image, _s: u8) -> Result<Report, KernelError> {
    Ok(Report {
        run: 0,
        failed: vec![],
    })
}
