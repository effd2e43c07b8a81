//! What the processor does to an entry while it is being changed.

use super::*;

#[test]
fn a_dirty_bit_set_meanwhile_is_not_lost() {
    fn life<F: Format>() {
        let mut host = Host::<F>::new(Method::DirtyLog);
        let op = [
            Op::Map(0, 1, 8, Access::ALL, MemoryType::WriteBack),
            Op::Arm(0, 8, 100),
            Op::RacingWrite(3),
            Op::Protect(0, 8, Access::READ, 100),
        ];
        op.into_iter().for_each(|op| host.apply(op));
        assert!(
            host.oracle[&3].dirty && !host.oracle[&4].dirty,
            "the race was not met"
        );
        host.check();
        host.apply(Op::Protect(0, 8, Access::ALL, 100));
        host.apply(Op::RacingWrite(5));
        host.apply(Op::Unmap(5, 1, 100));
        host.check();
        host.finish();
    }
    life::<Ept>();
    life::<Npt>();
    life::<Fake>();
}
