# Copying, moving, filling and comparing bytes with SSE2: the functions that compilers take for granted (C11 7.24; memory does
# not overlap but in `godwit_move`, whose `to` may also lie below what it reads). System V calling convention; only RAX, RCX, RDX,
# RSI, RDI, R8, R9 and XMM0 to XMM4 change.

.section .text.godwit_bytes,"ax",@progbits

# copy(to, from, count) -> to
.balign 16
.globl godwit_copy
godwit_copy:
    mov rax, rdi
    cmp rdx, 16
    jb copy_short
    # The last 16 bytes go by themselves, over what the loops have written already.
    movups xmm4, [rsi + rdx - 16]
    cmp rdx, 512
    jae 5f
    lea rcx, [rdi + rdx - 16]
    jmp 2f
5:
    # Long ones by the CPU's own loop.
    lea r8, [rdi + rdx - 16]
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    movups [r8], xmm4
    ret
1:
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + 32]
    movups xmm3, [rsi + 48]
    add rsi, 64
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + 32], xmm2
    movups [rdi + 48], xmm3
    add rdi, 64
    sub rdx, 64
2:
    cmp rdx, 64
    jae 1b
3:
    cmp rdi, rcx
    jae 4f
    movups xmm0, [rsi]
    add rsi, 16
    movups [rdi], xmm0
    add rdi, 16
    jmp 3b
4:
    movups [rcx], xmm4
    ret

# Less than 16 bytes at RDI from RSI: all of it is read before any is written.
copy_short:
    cmp edx, 8
    jb 1f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
1:
    cmp edx, 4
    jb 2f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
2:
    cmp edx, 2
    jb 3f
    movzx ecx, word ptr [rsi]
    movzx r8d, byte ptr [rsi + rdx - 1]
    mov [rdi], cx
    mov [rdi + rdx - 1], r8b
    ret
3:
    test edx, edx
    jz 4f
    movzx ecx, byte ptr [rsi]
    mov [rdi], cl
4:
    ret

# move(to, from, count) -> to; the two may overlap
.balign 16
.globl godwit_move
godwit_move:
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    # Upwards, unless `to` begins inside of what is read: a store then never meets bytes that are still to be read.
    jae godwit_copy
    mov rax, rdi
    cmp rdx, 16
    jb copy_short
    movups xmm4, [rsi]
    jmp 2f
1:
    movups xmm0, [rsi + rdx - 16]
    movups xmm1, [rsi + rdx - 32]
    movups xmm2, [rsi + rdx - 48]
    movups xmm3, [rsi + rdx - 64]
    movups [rdi + rdx - 16], xmm0
    movups [rdi + rdx - 32], xmm1
    movups [rdi + rdx - 48], xmm2
    movups [rdi + rdx - 64], xmm3
    sub rdx, 64
2:
    cmp rdx, 64
    jae 1b
3:
    cmp rdx, 16
    jbe 4f
    movups xmm0, [rsi + rdx - 16]
    movups [rdi + rdx - 16], xmm0
    sub rdx, 16
    jmp 3b
4:
    movups [rdi], xmm4
    ret

# fill(to, byte, count) -> to
.balign 16
.globl godwit_fill
godwit_fill:
    mov rax, rdi
    movzx ecx, sil
    mov r8, 0x0101010101010101
    imul rcx, r8
    cmp rdx, 16
    jb 4f
    movq xmm0, rcx
    punpcklqdq xmm0, xmm0
    lea rcx, [rdi + rdx - 16]
    cmp rdx, 512
    jb 2f
    mov r8, rcx
    mov r9, rax
    movq rax, xmm0
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov rax, r9
    movups [r8], xmm0
    ret
1:
    movups [rdi], xmm0
    movups [rdi + 16], xmm0
    movups [rdi + 32], xmm0
    movups [rdi + 48], xmm0
    add rdi, 64
    sub rdx, 64
2:
    cmp rdx, 64
    jae 1b
3:
    cmp rdi, rcx
    jae 5f
    movups [rdi], xmm0
    add rdi, 16
    jmp 3b
5:
    movups [rcx], xmm0
    ret
4:
    cmp edx, 8
    jb 6f
    mov [rdi], rcx
    mov [rdi + rdx - 8], rcx
    ret
6:
    cmp edx, 4
    jb 7f
    mov [rdi], ecx
    mov [rdi + rdx - 4], ecx
    ret
7:
    test edx, edx
    jz 8f
    # One to three.
    mov [rdi], cl
    mov [rdi + rdx - 1], cl
    shr edx, 1
    mov [rdi + rdx], cl
8:
    ret

# compare(a, b, count) -> below, equal to or above 0, as the first bytes that differ
.balign 16
.globl godwit_compare
godwit_compare:
    xor ecx, ecx
1:
    lea r8, [rcx + 16]
    cmp r8, rdx
    ja 2f
    movups xmm0, [rdi + rcx]
    movups xmm1, [rsi + rcx]
    pcmpeqb xmm0, xmm1
    pmovmskb eax, xmm0
    xor eax, 0xffff
    jnz 3f
    mov rcx, r8
    jmp 1b
3:
    bsf eax, eax
    add rcx, rax
    movzx eax, byte ptr [rdi + rcx]
    movzx ecx, byte ptr [rsi + rcx]
    sub eax, ecx
    ret
2:
    cmp rcx, rdx
    jae 5f
    movzx eax, byte ptr [rdi + rcx]
    movzx r8d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r8d
    jz 2b
    ret
5:
    xor eax, eax
    ret

