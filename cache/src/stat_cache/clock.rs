//! The clocks of the stat cache.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How much the distance between real time and uptime may shrink before the clock counts as set back. Reading the
/// two takes time, and NTP slews by at most 500 ppm; a step is larger.
const SLEW: i64 = 500_000_000;

/// The file systems' time when hashing started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashingStart {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl HashingStart {
    pub(super) fn now() -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        Self {
            seconds: now.tv_sec,
            nanos: nanos(&now),
        }
    }

    /// True when `ctime` is older by at least `grain`.
    pub(super) fn is_later_than(self, ctime: (i64, u32), grain: Duration) -> bool {
        let start = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos);
        let ctime = i128::from(ctime.0) * 1_000_000_000 + i128::from(ctime.1);
        ctime + i128::try_from(grain.as_nanos()).unwrap_or(i128::MAX) <= start
    }
}

/// What tells whether the clock was set back between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    /// Real time.
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    /// Real time less uptime, in nanoseconds.
    pub(super) offset: i64,
    /// Which boot the uptime is of; zeros when unknown.
    pub(super) boot: [u8; 16],
}

impl Now {
    pub(super) fn read() -> Self {
        let real = clock_gettime(ClockId::Realtime);
        let uptime = clock_gettime(ClockId::Boottime);
        let offset = (real.tv_sec - uptime.tv_sec)
            .saturating_mul(1_000_000_000)
            .saturating_add(real.tv_nsec - uptime.tv_nsec);
        let mut boot = [0; 16];
        if let Ok(id) = std::fs::read("/proc/sys/kernel/random/boot_id") {
            boot.copy_from_slice(&blake3::hash(&id).as_bytes()[..16]);
        }
        Self {
            seconds: real.tv_sec,
            nanos: nanos(&real),
            offset,
            boot,
        }
    }

    /// True when nothing says that the clock was set back between `self` and `later`.
    pub(super) fn is_before(&self, later: &Self) -> bool {
        let runs_on = (self.seconds, self.nanos) <= (later.seconds, later.nanos);
        let is_same_boot = self.boot == later.boot;
        runs_on && (!is_same_boot || later.offset.saturating_add(SLEW) >= self.offset)
    }
}

fn nanos(time: &Timespec) -> u32 {
    u32::try_from(time.tv_nsec).unwrap_or(0)
}
