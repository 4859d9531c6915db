# A PC that boots from its disk and counts: the whole of it is this boot sector, which the BIOS loads to 0x7c00 in real mode.
# It needs no kernel and has no drivers: the BIOS reads and writes its disk, the serial port is written to.
#
# Sector 1 of the disk holds two numbers of 32 bits: how often it has booted, and how far it has counted. About nine times a
# second it reads them back, prints
#
#     PC boots=00000001 ram=0000002a disk=0000002a
#
# (what RAM holds of both, and what the disk holds of the second), counts on in RAM and writes both. So RAM and disk of one
# moment agree, whichever moment a restore goes back to, and a boot goes on from the disk. An "r" on the console reboots it, an
# "o" turns it off.

        .intel_syntax noprefix
        .code16
        .globl _start

        .set NUMBERS, 0x8000            # of RAM: boots, count; the rest of the sector is written as it was read
        .set SECTOR, 0x8200             # as the disk has it
        .set COM1, 0x3f8
        .set PM1_CONTROL, 0x604         # of the PIIX4's power management, where SeaBIOS puts it
        .set SOFT_OFF, 0x2000           # SLP_EN, and the SLP_TYP that QEMU's tables name for S5
        .set FOR_READING, 0x42          # of int 0x13, both by a packet
        .set FOR_WRITING, 0x43

_start: cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        mov     [drive], dl
        sti
        mov     bx, NUMBERS
        mov     ah, FOR_READING
        call    disk
        inc     dword ptr [NUMBERS]
write:  mov     bx, NUMBERS
        mov     ah, FOR_WRITING
        call    disk
        hlt                             # two ticks of the timer, 18.2 a second
        hlt
        mov     bx, SECTOR
        mov     ah, FOR_READING
        call    disk
        mov     si, offset boots
        mov     eax, [NUMBERS]
        call    field
        mov     eax, [NUMBERS + 4]
        call    field
        mov     eax, [SECTOR + 4]
        call    field
        call    text
        inc     dword ptr [NUMBERS + 4]
        mov     dx, COM1 + 5
        in      al, dx
        test    al, 1
        jz      write
        mov     dx, COM1
        in      al, dx
        cmp     al, 'o'
        je      off
        cmp     al, 'r'
        jne     write
        mov     al, 0xfe                # the keyboard controller pulls the processor's reset line
        out     0x64, al
stop:   hlt
        jmp     stop

off:    mov     dx, PM1_CONTROL
        mov     ax, SOFT_OFF
        out     dx, ax
        jmp     stop

# One sector at LBA 1 to or from ES:BX, as AH says; where that fails it says so and stands still.
disk:   mov     [packet + 4], bx
        mov     dl, [drive]
        mov     si, offset packet
        int     0x13
        jc      failed
        ret
failed: mov     si, offset broken
        call    text
        jmp     stop

# The text at SI, then EAX in hexadecimal; SI is behind the text.
field:  push    eax
        call    text
        pop     eax
        mov     cx, 8
digit:  rol     eax, 4
        push    eax
        and     al, 15
        cmp     al, 10
        jb      put
        add     al, 'a' - 10 - '0'
put:    add     al, '0'
        call    send
        pop     eax
        loop    digit
        ret

text:   lodsb
        test    al, al
        jz      return
        call    send
        jmp     text

send:   push    ax
        mov     dx, COM1 + 5
full:   in      al, dx
        test    al, 0x20
        jz      full
        mov     dx, COM1
        pop     ax
        out     dx, al
return: ret

boots:  .asciz  "PC boots="
        .asciz  " ram="
        .asciz  " disk="
        .asciz  "\r\n"
broken: .asciz  "PC broken\r\n"
drive:  .byte   0
        .balign 4
packet: .byte   16, 0                   # its size; one sector, buffer as offset and segment, LBA
        .word   1, 0, 0
        .long   1, 0

        .org    510
        .word   0xaa55
