//! Counts as real numbers and back.

/// A count as a float. Exact below 2^53; a count of flows stays below.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

/// Parts per million as a share.
pub(super) fn share(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

/// A difference of shares as parts per million.
#[expect(clippy::cast_possible_truncation, reason = "bounded before")]
pub(super) fn ppm(share: f64) -> i64 {
    (share * 1e6).round().clamp(-1e9, 1e9) as i64
}

/// Up to the next whole number; `None` unless it is a count below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded before"
)]
pub(super) fn whole(number: f64) -> Option<u64> {
    let up = number.ceil();
    (0.0..9e15).contains(&up).then_some(up as u64)
}

/// `part` of `total`, 0 of nothing.
pub(super) fn ratio(part: u64, total: u64) -> f64 {
    if total == 0 {
        0.0
    } else {
        real(part) / real(total)
    }
}
