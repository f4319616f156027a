//! The limits of a plug-in. Every limit is finite by default.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Linear memory comes in pages of this many bytes.
pub(crate) const WASM_PAGE_BYTES: usize = 64 * KIB;

/// The address space that is reserved for each linear memory, with guard pages behind it. An index of 32 bits can
/// never leave it, so the compiled code has no bounds checks.
pub(crate) const MEMORY_RESERVATION_BYTES: usize = 4096 * MIB;

/// The interval of the ticker. A call is stopped within one tick of its deadline.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// The stack that a host call needs below the guest's own, and the stack that Rust gives a thread at least.
const HOST_STACK_BYTES: usize = 512 * KIB;
const THREAD_STACK_BYTES: usize = 2 * MIB;

/// The longest name and the longest version of a plug-in, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Limits what one plug-in may use while it runs, and what its module may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The name of the profile that they come from: `default` or `large`.
    pub profile: &'static str,
    /// Linear memory of one instance, in bytes (16 MiB).
    pub memory_bytes: usize,
    /// The guest's stack, in bytes (256 KiB).
    pub stack_bytes: usize,
    /// Elements of one table (10,000).
    pub table_elements: usize,
    /// Computing time of one call, and of starting an instance (20 ms); see [`Limits::deadline_for`]. It is the
    /// processor time of the thread, so time on a busy machine does not count. Ten times as much wall-clock time ends a
    /// call as well.
    pub deadline: Duration,
    /// The bytes of a batch for which a call gets one `deadline` (256 KiB).
    pub deadline_bytes: usize,
    /// A response has at most `output_factor` x input + `output_slack_bytes` bytes (2 x, 64 KiB).
    pub output_factor: usize,
    /// The same factor for `deserialize`, which makes text with the names of fields out of a few bytes (32 x).
    pub deserialized_factor: usize,
    /// See [`Limits::output_factor`].
    pub output_slack_bytes: usize,
    /// The limits of the module itself.
    pub module: ModuleLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            profile: "default",
            memory_bytes: DEFAULT_MEMORY_BYTES,
            stack_bytes: DEFAULT_STACK_BYTES,
            table_elements: 10_000,
            deadline: Duration::from_millis(20),
            deadline_bytes: 256 * KIB,
            output_factor: 2,
            deserialized_factor: 32,
            output_slack_bytes: 64 * KIB,
            module: ModuleLimits::default(),
        }
    }
}

impl Limits {
    /// The names of the profiles.
    pub const PROFILES: [&str; 2] = ["default", "large"];

    /// Returns the limits of a profile.
    pub fn of_profile(name: &str) -> Option<Limits> {
        match name {
            "default" => Some(Limits::default()),
            "large" => Some(Limits::large()),
            _ => None,
        }
    }

    /// Returns limits with room for the interpreter of a large language, such as Python by componentize-py. Only the
    /// module and its compilation may be larger; a call has the limits of every plug-in.
    pub fn large() -> Limits {
        Limits { profile: "large", module: ModuleLimits::large(), ..Limits::default() }
    }

    /// Returns the deadline of a call with this many bytes: one `deadline`, and one more for each further
    /// `deadline_bytes`. A good gzip needs about 20 ms for a batch of 1 MiB, so one deadline would be too tight.
    pub fn deadline_for(&self, bytes: usize) -> Duration {
        let parts = bytes.div_ceil(self.deadline_bytes.max(1)).max(1);
        self.deadline.saturating_mul(u32::try_from(parts).unwrap_or(u32::MAX))
    }

    /// Returns the most bytes that the response to `input_bytes` may have.
    pub fn output_bytes_max(&self, input_bytes: usize) -> usize {
        input_bytes.saturating_mul(self.output_factor).saturating_add(self.output_slack_bytes)
    }

    /// Returns the most bytes that the response of `deserialize` to `input_bytes` may have.
    pub fn deserialized_bytes_max(&self, input_bytes: usize) -> usize {
        input_bytes.saturating_mul(self.deserialized_factor).saturating_add(self.output_slack_bytes)
    }
}

/// Limits what a module may hold. The scan checks them before anything is compiled: compiling some modules takes
/// minutes and gigabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLimits {
    /// The whole file, in bytes (4 MiB).
    pub size_bytes: usize,
    /// Functions in all core modules together (10,000).
    pub functions: u32,
    /// The body of one function, in bytes (128 KiB).
    pub body_bytes: usize,
    /// Locals of one function (1,000).
    pub locals: u32,
    /// Blocks inside blocks (2,000).
    pub block_depth: u32,
    /// Targets of one `br_table` (10,000).
    pub branch_targets: u32,
    /// Data segments (100,000, as in V8). The limit of the file bounds their bytes.
    pub data_segments: u32,
    /// Custom sections together, in bytes (1 MiB): names and debug information.
    pub custom_bytes: usize,
    /// Core modules, nested components and instances of either (256 together).
    pub parts: u32,
    /// Instances of core modules (16): the module itself, and those that tools add to connect imports or to stand in
    /// for them.
    pub core_instances: u32,
    /// Memories (8). Only one of them may have pages at the start.
    pub memories: u32,
    /// Types, imports, exports, aliases and canonical functions of components (10,000 together).
    pub items: u32,
    /// The processor time that the compiler may take (20 s). Ten times as much wall-clock time ends it as well.
    pub compile_time: Duration,
}

impl Default for ModuleLimits {
    fn default() -> Self {
        ModuleLimits {
            size_bytes: 4 * MIB,
            functions: 10_000,
            body_bytes: 128 * KIB,
            locals: 1_000,
            block_depth: 2_000,
            branch_targets: 10_000,
            data_segments: 100_000,
            custom_bytes: MIB,
            parts: 256,
            core_instances: 16,
            memories: 8,
            items: 10_000,
            compile_time: Duration::from_secs(20),
        }
    }
}

impl ModuleLimits {
    /// Returns the limits of the profile `large`. Python by componentize-py 0.25 has 18.5 MB, 13,500 functions, a body
    /// of 427 KB, 38 core instances and 10,640 items, and takes 8 s to compile.
    fn large() -> ModuleLimits {
        ModuleLimits {
            size_bytes: 20 * MIB,
            functions: 16_000,
            body_bytes: 512 * KIB,
            core_instances: 48,
            items: 16_000,
            compile_time: Duration::from_secs(60),
            ..ModuleLimits::default()
        }
    }
}

const DEFAULT_MEMORY_BYTES: usize = 16 * MIB;
const DEFAULT_STACK_BYTES: usize = 256 * KIB;

const _: () = assert!(DEFAULT_MEMORY_BYTES.is_multiple_of(WASM_PAGE_BYTES));
const _: () = assert!(DEFAULT_MEMORY_BYTES <= MEMORY_RESERVATION_BYTES);
const _: () = assert!(DEFAULT_STACK_BYTES + HOST_STACK_BYTES <= THREAD_STACK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_batch_has_a_longer_deadline() {
        let limits = Limits::default();
        let millis = |bytes| limits.deadline_for(bytes).as_millis();
        assert_eq!([millis(0), millis(256 * KIB), millis(256 * KIB + 1), millis(MIB)], [20, 20, 40, 80]);
    }

    #[test]
    fn each_profile_has_its_name() {
        for name in Limits::PROFILES {
            assert_eq!(Limits::of_profile(name).map(|limits| limits.profile), Some(name));
        }
        assert_eq!(Limits::of_profile("huge"), None);
        let (large, usual) = (Limits::large(), Limits::default());
        assert_eq!((large.memory_bytes, large.deadline), (usual.memory_bytes, usual.deadline), "a call costs no more");
    }

    #[test]
    fn the_limit_of_a_response_never_overflows() {
        let limits = Limits::default();
        assert_eq!(limits.output_bytes_max(0), 64 * KIB);
        assert_eq!(limits.output_bytes_max(MIB), 2 * MIB + 64 * KIB);
        assert_eq!(limits.output_bytes_max(usize::MAX), usize::MAX);
        assert_eq!(limits.deserialized_bytes_max(MIB), 32 * MIB + 64 * KIB);
        assert_eq!(limits.deserialized_bytes_max(usize::MAX), usize::MAX);
    }
}
