//! Counts the allocations of a piece of code, to test that nothing is allocated by a claimed size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

thread_local! {
    // Each test runs on its own thread. Constant and without a destructor, so an allocator can read it safely.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// What [`watch`] saw during one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The largest single request, in bytes.
    pub(crate) largest: usize,
    /// The number of requests.
    pub(crate) count: usize,
}

/// Runs `work` on this thread and returns its allocations. Those of C libraries are not seen.
pub(crate) fn watch<T>(work: impl FnOnce() -> T) -> (T, Seen) {
    LARGEST.set(0);
    COUNT.set(0);
    let result = work();
    (result, Seen { largest: LARGEST.get(), count: COUNT.get() })
}

struct Watched;

fn note(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
    COUNT.set(COUNT.get() + 1);
}

#[expect(unsafe_code, reason = "an allocator can only be watched from inside one")]
// SAFETY: every call goes to the system's allocator unchanged; recording a size allocates nothing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller upholds the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}
