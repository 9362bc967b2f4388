"""Two small HDF5 files, compressed, as h5py 3.14 wrote them the way Keras saves weights.

Each holds block1_conv1 and block1_conv2, kernels [3, 3, 3, 2] and [3, 3, 2, 2], drawn one after
another, kernel before bias, from one generator of seed 0; OLD under Keras 1's names, as the
published weights of VGG are, then NEW under Keras 2's.
"""

import base64
import zlib

import numpy as np


def _file(text):
    return zlib.decompress(base64.b85decode(text))


def drawn():
    """[{(layer, "kernel" or "bias"): array} of OLD, of NEW]."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(2):
        arrays = {}
        for layer, channels in (("block1_conv1", 3), ("block1_conv2", 2)):
            arrays[layer, "kernel"] = rng.standard_normal((3, 3, channels, 2)).astype(np.float32)
            arrays[layer, "bias"] = rng.standard_normal(2).astype(np.float32)
        out.append(arrays)
    return out


OLD = _file(
    "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfG!#(zF!=;1%?PDCp!5nRm^d?7P68?}05xBM8C88qkgF?5^?x(~vnPWMLUS;T"
    "f{_S3Tpa^IbOe;|0Hsebp{mQwD=00AH)Kf4$xqHUj8D$bD>DR%Bk_%p_yzg-IVkB@0?l4QXnI9Y*E|dvP<=eWG%3N5"
    "lUSKr6rY!vn_3JO7iI*h0m?H%OlE=VXF+o(n%fMK-HGf*T={4NJ2Zcw<Rb>0`Dhf3<|E{M1S?Mk*ihBM@<RZX><#ww"
    "cVR@TT_iYA?Qwwe6CgDa1GKtfI3R|q?gf<3Aqk-kVD*D6s=5hK{swtef39FgRd)f(|G+vl;ty6Hp}U)h!2{|qUIr0h"
    "DN&x9nVwOCD3Amd?4e=cz+l47VDcXp4vdUg?ZH*v+<?YU1F`kC2x@$ef{|U`SU~9pE>v~MbzppWyrGo=7V#v6I4spF"
    "5XdL!<q8k9#R|$N99Z%RsNNPr$``Qa1rttpVs{}U11rRhj4<~?^Ct^L0Gj<UXeJ!unDP=}qXiY@p=}BU25}As@p`B{"
    "E6{f!c_t<%Mo9Sw$;r%&89WdbH_$>Xf~M&pXFr2oy&L<!y`Plr?_a%UyHJsH|6iq@c9k!e**_~Tvj3-UvOo0a!u_xM"
    "<oD;fYTEjp6*=&RD`6jV)%^VrO0D<zhj8zg__T1J?ZHcSB89E?)8{eob9=GQ-q=fPzv9o$c9%TU?OQt!*!~E$+i&zO"
    "dp}q7t9@6i6796D8~4i_h3$L9t-SAc377q>^U-#hpSRitB&zQ(*vYbQ-X;(G0~-77`85~rcRX>>eyQskdo~si`(0`6"
    "c6GZJ?8{lO%YOgMU-my|KeG=CU12}**ET!-RkQa0`aE&>K0Xb5_Locc7x<pClMugScU#}cUU%a3{o$#a`wL6%?-SZH"
    "b^q+e_w1Qp{N1-TZ-w3b<d%K5>rdHFXIyEYrmSS|$HsdgR3_AxpH1KXLSuuyhQ8eX)#fklA2F}o|2$H2e?fe{ecf9R"
    "TVr(w2VHJQJ0?k`{fq$z_pM#ky`Qan@&08=iuNAIMeL=vEVaL(>$rc7$qoBzmC5_e+D_U_PrJKsk%!Ix(GqABjDk@x"
    "3P!;|0!aUl3EmHj;Kr{W)~?$iIvRGU{WA1+r36Ypj)`jRL<e5fo-+(|46^XR-cN0iB(0w+AU)bo9qp%L_ER+^arRS<"
    "aP(7+$myq|k84q}pK65BPc<UHpUOm_pGv**#{*jaOrUE&6}_HfkRq<0ijW!2LjzM!-54VE6eCJK1<Uv7<J6<`H=}@*"
    "dJ2~6FUX^(Hwd8C{0#t`RJOG"
)
NEW = _file(
    "c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfJTy@GF!=;1%?PDCp!5nRm^d?7P68?}05xBM8C88qkgF?5^?x(~vnPWMLUS;T"
    "f{_S3Tpa^IbOe;|0Hsebp{mQwD=00AH)Kf4$xqHUj8D$bD>DR%Bk_%p_yzg-IVkB@0?l4QXnI9Y*E|dvP<=eWG%3N5"
    "lUSKr6rY!vn_3JO7iI*h0m?H%OlE=VXF+o(n%fMK-HGf*T={4NJ2Zcw<Rb>0`Dhf3<|E{M1S?Mk*ihBM@<RZX><#ww"
    "cVR@TT_iYA?Qwwe6CgDag923if)uK{A5gx8EQB_I)jO)F>NY_67t~Sxxq=y0-32KB1MAR;KUjH$?rt6i52(L*8AO1k"
    "M0sjvdPWJNKoV52hlYUzg9$f-$$wZlFfwAb2UmG>gNw9!+dzD@-X1M)5akUlJvDHlsza}@8PV!_a`Op#xq_&-dBOEI"
    "dOiWw+oDMM0@l1>!s1T-?9`&X)Ep}V6v3p-#9}K0L_T7L_=OS1hvrijhyXMjV$e)D#4+V1z(xxy$V1x}3Jl^L4C3`r"
    "c~+n=LGnyYOpK6x2#En^#sVIQiW_Jl7eUkXu=jYq-3qoA`%U*%>@1#&?iX9TdOu6*=KYt~GuU5^t+l^yqp|N)OXvQL"
    "_3`$fA1~g&u-j}u`)@h>049M0HkXdtWjzzw&w1{?Z93=dy~5x9>>Rfm+PA7W?ce)otG&lVOZ&V3!tI@<rrIaX_q6X4"
    "jj+FbVU}(Cf^GYqJ-PP1{O7ViU1r<<x4|uTr9FcC7hP!H&)?X(|9fty-L1vj?L6I9+DH9L-oqH(YM)iR*?ytLWP6oF"
    "@dHh+bM4nWT5H$;<Az<U;6A(kKMvbDcP+N7IlO(}$&AnY*Yn-q8-LJu|7oW#dy|`!_bGl|WqZ6na=-cxrv2JqZT1{f"
    "*tb9J^Gv%;o11%AADzB`S&ig@q;O{Y_c1f}En3IEzx7h#KF_8X_ELYm_ZFsZv`vrLx1Z_GCHuMuS@uB_JM61noNXVk"
    "%(CD2X0P41pECB9H>CH)tk|=^VPmuXp*7$4f8AKRFCs5+Utvw_{>5Kq?5&l3_nEG}zb{gR)n1$F%Rb3d8|_C+qERpk"
    "M!_f;1p^5f!4T07gtgOVh(P!|#E9!xR7i~WD@OYjh}J4>yx@iysybK`9p2A?w$5Sw3k$NwF&N?Lu0RBJJOMo&j{<z*"
    "$OJD34oKox4-4-E?$NMAEl<(=ml7!BI!sjSFM9A|FL65tS$JR{x0)bJ+PKvV#nJj@w0^-Hx3ZAMIc{Y{&2cOAac(M("
    "TNz;+w=$w|+=_|7xE1xvp#W$(G=Z+;R=C=&0rJpxfFg0_ih=TIxiVU=V76N)DAKpxsv(csZbeVWqky<}YlRAN?N$l7"
    "(XbnscI$&7(r(3Gzo5@!kFM_+1*Ft3uvGs+9X-84%Y7=@3jo5g_X+"
)
