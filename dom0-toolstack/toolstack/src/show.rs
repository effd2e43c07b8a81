//! What commands print: facts from the hypervisor as text, in the columns of `xl`.

mod console;
mod costs;
mod disks;
mod info;
mod list;
mod moves;
mod top;

pub use console::{
    CONSOLE_CHUNK_BYTES, DeviceTail, LOG_BYTES_MAX, Printable, Stream, Tail, ends_console, ends_top,
};
pub use costs::costs;
pub use disks::{DiskRow, disk_dump, disk_list};
pub use info::{info, uptime};
pub use list::{list, list_long, sched_credit2, uuid_text, vcpu_list};
pub use moves::{history, line_json, move_json, moves, moves_json};
pub use top::{Snapshot, TopState};
